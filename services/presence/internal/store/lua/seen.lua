-- When the users ARGV 9... were last online: now for those who are, 0 for those nobody knows.
local out = {}
for i = 9, #ARGV do
  local at = redis.call('ZSCORE', KEYS[5], ARGV[i]) or '0'
  if redis.call('HEXISTS', KEYS[3], ARGV[i]) == 1 or redis.call('ZSCORE', KEYS[4], ARGV[i]) then at = ms(now) end
  out[#out + 1] = ms(tonumber(at))
end
return finish(out)
