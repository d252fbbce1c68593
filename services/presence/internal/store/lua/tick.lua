-- Lets graces end, at most ARGV 9 of them, and names the gateways whose lease ran out. ARGV 10 is 1 when it is time to tidy up:
-- marks of replicas that have not called for ARGV 11 ms and users not seen for ARGV 12 ms are forgotten.
local due = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', ms(now - grace), 'WITHSCORES', 'LIMIT', 0, tonumber(ARGV[9]))
for i = 1, #due, 2 do
  redis.call('ZREM', KEYS[4], due[i])
  offline(due[i], tonumber(due[i + 1]))
end
if ARGV[10] == '1' then
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', ms(now - tonumber(ARGV[11])))
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', ms(now - tonumber(ARGV[12])))
end
return finish(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ms(now - lease)))
