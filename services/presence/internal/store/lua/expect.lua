-- The epoch has just begun: the gateways ARGV 9... called a moment ago, so their sessions are to be waited for.
if since > 0 then
  for i = 9, #ARGV do
    if not redis.call('ZSCORE', KEYS[2], ARGV[i]) then redis.call('HSET', KEYS[1], 'late:' .. ARGV[i], ms(now)) end
  end
end
return finish()
