-- wrk -s wrk.lua URL -- REQUEST_FILE TOKEN_FILE
-- Sends the request in REQUEST_FILE again and again, each time with the next token of TOKEN_FILE in the place of @TOKEN@.
-- All tokens have the same length, so the Content-Length in the file holds for each of them.

local before, after
local tokens = {}
local position = 0
local thread_of_load

function setup(thread)
  thread_of_load = thread
end

function init(args)
  local file = assert(io.open(args[1], 'rb'))
  before, after = file:read('*a'):match('^(.*)@TOKEN@(.*)$')
  file:close()
  for token in io.lines(args[2]) do tokens[#tokens + 1] = token end
end

function request()
  position = position + 1
  sent = position
  return before .. tokens[(position - 1) % #tokens + 1] .. after
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "errors": %d, "p50": %f, "p99": %f, "slowest": %f, "sent": %d}\n',
    summary.requests,
    summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e6,
    latency:percentile(99) / 1e6,
    latency.max / 1e6,
    thread_of_load:get('sent') or 0
  ))
end
