'use strict'

// The way of deepstream's own tutorial (Express 4, jsonwebtoken), with what deepstream 5 and later need: an `id` in the
// answer, and a 403 for whatever is not a good token.
// PORT, JWK (the signing key), ISSUER and AUDIENCE come from the environment.

const express = require('express')
const jwt = require('jsonwebtoken')

const { PORT, JWK, ISSUER, AUDIENCE } = process.env
const key = Buffer.from(JSON.parse(JWK).k, 'base64url')
const options = { algorithms: ['HS256'], issuer: ISSUER, audience: AUDIENCE }

const app = express()
app.use(express.json())

app.get('/readyz', (req, res) => res.send('ready'))

app.post('/check-token', (req, res) => {
  const token = getCookie(req.body?.connectionData?.headers?.cookie, 'access_token')
  jwt.verify(token, key, options, (err, decoded) => {
    if (err) {
      res.status(403).send('Failed to authenticate token.')
    } else {
      const expiresAt = decoded.exp * 1000
      res.status(200).json({
        id: decoded.sub,
        username: decoded.sub,
        clientData: { ...decoded.client_data, username: decoded.sub, expiresAt },
        serverData: { ...decoded.server_data, sid: decoded.sid, version: decoded.ver, expiresAt }
      })
    }
  })
})

function getCookie (src, name) {
  const value = '; ' + src
  const parts = value.split('; ' + name + '=')
  if (parts.length === 2) return parts.pop().split(';').shift()
}

app.listen(PORT, '127.0.0.1', 4096)
