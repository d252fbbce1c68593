-- Takes away the sessions of ARGV 9, a gateway whose lease ran out. Whoever comes second finds no lease.
local beat = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[9]) or '0')
if beat > 0 and beat + lease <= now then
  own()
  local held = redis.call('HGETALL', KEYS[7])
  for i = 1, #held, 2 do leave(held[i + 1], beat, false) end
  redis.call('DEL', KEYS[7], KEYS[8], KEYS[9])
  redis.call('ZREM', KEYS[2], ARGV[9])
end
return finish()
