// Two grant types that oidc-provider leaves to who runs it: JWT bearer (RFC 7523 §2.1) and token exchange (RFC 8693).
// The server's own parts look after the client, the scope, the errors and the tokens; here is what each type demands.
import { createLocalJWKSet, jwtVerify } from 'jose';
import { errors } from 'oidc-provider';

const TYPE = 'urn:ietf:params:oauth:token-type:';
export const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';

export const register = (provider, audiences, keys) => {
  const jwks = createLocalJWKSet({ keys });
  const seen = new Set();

  const verified = async (assertion) => {
    try {
      const { payload } = await jwtVerify(assertion, jwks, { audience: audiences, requiredClaims: ['iss', 'sub', 'exp', 'jti'] });
      if (payload.exp - (payload.iat ?? payload.exp) > 3700 || seen.has(payload.jti)) throw new Error('too long, or used');
      seen.add(payload.jti);
      return payload;
    } catch (error) {
      throw new errors.InvalidGrant(`assertion: ${error.message}`);
    }
  };

  const issue = async (ctx, more) => {
    const { client, params } = ctx.oidc;
    const wanted = (params.scope ?? client.scope).split(' ').filter((each) => client.scope.split(' ').includes(each));
    if (!wanted.length) throw new errors.InvalidScope('none of these is allowed', params.scope);
    const token = new provider.ClientCredentials({ client, scope: wanted.join(' ') });
    if (params.audience) token.aud = params.audience;
    ctx.oidc.entity('ClientCredentials', token);
    const value = await token.save();
    ctx.body = { access_token: value, expires_in: token.expiration, token_type: 'Bearer', scope: token.scope, ...more };
  };

  provider.registerGrantType(JWT_BEARER, async (ctx) => {
    if (!ctx.oidc.params.assertion) throw new errors.InvalidRequest('missing assertion');
    await verified(ctx.oidc.params.assertion);
    await issue(ctx, {});
  }, ['assertion', 'scope']);

  provider.registerGrantType(TOKEN_EXCHANGE, async (ctx) => {
    const { subject_token: subject, subject_token_type: type } = ctx.oidc.params;
    if (!subject || !type) throw new errors.InvalidRequest('missing subject_token or subject_token_type');
    if (type === `${TYPE}jwt`) await verified(subject);
    else if (type === `${TYPE}access_token`) {
      const found = await provider.AccessToken.find(subject) ?? await provider.ClientCredentials.find(subject);
      if (!found || found.isExpired) throw new errors.InvalidRequest('the subject token is unknown or expired');
    } else throw new errors.InvalidRequest('this subject_token_type is not supported');
    await issue(ctx, { issued_token_type: `${TYPE}access_token` });
  }, ['subject_token', 'subject_token_type', 'actor_token', 'actor_token_type', 'requested_token_type', 'scope', 'audience', 'resource'],
  ['audience', 'resource']);
};
