// Protected resources with metadata (RFC 9728): /mcp has it where §3.1 wants it, /api only where its challenge says.
// Both want a token, and are not looked into any further: what an API does with one is not the tests' matter.
const METADATA = '/.well-known/oauth-protected-resource';

export const paths = ['/mcp', '/api'];

export const protectedResources = (url) => {
  const about = (path) => ({
    resource: `${url}${path}`, authorization_servers: [url], scopes_supported: ['api:read', 'api:write'], bearer_methods_supported: ['header'],
  });
  const documents = { [`${METADATA}/mcp`]: about('/mcp'), '/documents/api': about('/api') };
  const challenges = { '/mcp': `${METADATA}/mcp`, '/api': '/documents/api' };

  return (request, response) => {
    const { pathname } = new URL(request.url, url);
    if (documents[pathname]) {
      response.setHeader('Content-Type', 'application/json');
      response.end(JSON.stringify(documents[pathname]));
    } else if (challenges[pathname]) {
      response.statusCode = 401;
      response.setHeader('WWW-Authenticate', `bearer realm="a, \\"b\\" resource_metadata=\\"no\\"", Resource_Metadata="${url}${challenges[pathname]}"`);
      response.end();
    } else return false;
    return true;
  };
};
