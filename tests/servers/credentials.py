# The credentials that the test providers know. All of them are obviously fake and open nothing.
from __future__ import annotations

IX_API_KEY = "test-only-key"
IX_API_SECRET = "test-only-secret"  # of ix-api

OCCAM_USER = "test-only@occam.example"
OCCAM_PASSWORD = "test-only-password with spaces & ünïcode+%41"
OCCAM_KEY = "test-only-occam-key/+=&"  # travels in the query string, so it has to be encoded there

TREEZOR_CLIENT = "test-only-treezor-client"
TREEZOR_SECRET = "test-only-treezor-secret"
TREEZOR_USER = "test-only-treezor-user"
TREEZOR_PASSWORD = "test-only-treezor-pässword"

CLICK2MAIL_CLIENT = "test-only-click2mail-client"  # client id and client key (X-Client-Id) are one
CLICK2MAIL_SECRET = "test-only-click2mail-secret-of-32-bytes"  # also the HS256 key of assertions
CLICK2MAIL_OTPS = ("test-only-otp-1", "test-only-otp-2")  # each works once

OAUTH2_CLIENT = "test-only-client"  # basic and post, all grants
OAUTH2_SECRET = "test-only-client-secret"
OAUTH2_ODD_CLIENT = "test-only:client ü"  # basic only; both need form-encoding first (RFC 6749 §2.3.1)
OAUTH2_ODD_SECRET = "test-only:s%20cret+/&=ö"
OAUTH2_POST_CLIENT = "test-only-post-client"  # post only
OAUTH2_POST_SECRET = "test-only-post-secret"
OAUTH2_PUBLIC_CLIENT = "test-only-public-client"  # none
OAUTH2_USER = "test-only-user"
OAUTH2_PASSWORD = "test-only-password"
