-- A gateway is alive. ARGV 9 gateway, 10 compare (1 or 0), 11 n, 12 hi, 13 lo: what it holds, 14 epoch and 15 version that
-- it saw. The answer says whether what it holds differs.
if ARGV[14] == epoch and version < tonumber(ARGV[15]) then
  -- It was told of changes that this server has forgotten.
  renew()
  stamp()
  begin()
end
own()
redis.call('ZADD', KEYS[2], ms(now), ARGV[9])
keep()
local differs = n ~= tonumber(ARGV[11]) or hi ~= tonumber(ARGV[12]) or lo ~= tonumber(ARGV[13])
if since > 0 then
  -- Without a comparison nothing is known, so it counts as late.
  if differs or ARGV[10] ~= '1' then
    redis.call('HSET', KEYS[1], 'late:' .. ARGV[9], ms(now))
  else
    redis.call('HDEL', KEYS[1], 'late:' .. ARGV[9])
  end
end
return finish({ (ARGV[10] == '1' and differs) and 1 or 0 })
