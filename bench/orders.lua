-- One order a request: each with a key of its own, or 500 keys over and over.
-- Arguments: salt, then the number of keys (0: without end).
local n, salt, keys = 0, "", 0
local body = '{"amount":1999,"currency":"EUR","customer":"c_8d7f"}'
function init(args) salt, keys = args[1], tonumber(args[2]) end
function request()
  n = keys > 0 and n % keys + 1 or n + 1
  local headers = { ["Content-Type"] = "application/json", ["Idempotency-Key"] = salt .. "-" .. n }
  return wrk.format("POST", "/orders", headers, body)
end
function done(s, l)
  local errors = s.errors.status + s.errors.read + s.errors.timeout + s.errors.connect
  io.write(string.format("RESULT %d %d %.3f %.3f %d\n", s.requests, s.duration, l:percentile(50) / 1000, l:percentile(99) / 1000, errors))
end
