'use strict'

// Fastify with fast-jwt, the strongest pair of Node: schemas for what comes and goes, as Fastify's documentation advises.
// PORT, JWK (the signing key), ISSUER and AUDIENCE come from the environment; CACHE is the number of verified tokens that
// fast-jwt keeps, 0 for none.

const fastify = require('fastify')
const { createVerifier } = require('fast-jwt')

const { PORT, JWK, ISSUER, AUDIENCE, CACHE } = process.env

const verify = createVerifier({
  key: Buffer.from(JSON.parse(JWK).k, 'base64url'),
  algorithms: ['HS256'],
  allowedIss: ISSUER,
  allowedAud: AUDIENCE,
  // The token itself as the cache's key is faster than its hash, which is the default.
  ...(Number(CACHE) && { cache: Number(CACHE), cacheKeyBuilder: (token) => token })
})

const text = { type: 'string' }
const number = { type: 'number' }
const schema = {
  body: {
    type: 'object',
    required: ['connectionData'],
    properties: {
      connectionData: {
        type: 'object',
        required: ['headers'],
        properties: { headers: { type: 'object', properties: { cookie: text } } }
      }
    }
  },
  response: {
    200: {
      type: 'object',
      properties: {
        id: text,
        username: text,
        clientData: {
          type: 'object',
          properties: { username: text, expiresAt: number },
          additionalProperties: true
        },
        serverData: {
          type: 'object',
          properties: { sid: text, version: number, expiresAt: number },
          additionalProperties: true
        }
      }
    }
  }
}

const app = fastify({ logger: false })

app.get('/readyz', async () => 'ready')

app.post('/check-token', { schema }, (request, reply) => {
  let claims
  try {
    claims = verify(getCookie(request.body.connectionData.headers.cookie, 'access_token'))
  } catch {
    reply.code(403).type('text/plain').send('session_invalid')
    return
  }
  const expiresAt = claims.exp * 1000
  reply.send({
    id: claims.sub,
    username: claims.sub,
    clientData: { ...claims.client_data, username: claims.sub, expiresAt },
    serverData: { ...claims.server_data, sid: claims.sid, version: claims.ver, expiresAt }
  })
})

function getCookie (cookies, name) {
  for (const pair of (cookies || '').split(';')) {
    const [found, value] = pair.trim().split('=', 2)
    if (found === name) return value
  }
}

app.listen({ port: Number(PORT), host: '127.0.0.1', backlog: 4096 })
