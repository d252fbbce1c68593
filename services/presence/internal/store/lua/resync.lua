-- All sessions of a gateway with ARGV 10 <= id <= ARGV 11 (ids as 16 hex digits). ARGV 9 gateway, from 12 on id, user. What is not
-- named is gone, with grace, and may come back: this request can be older than one that brought a session.
own()
local named = {}
for i = 12, #ARGV, 2 do
  named[ARGV[i]] = true
  add(ARGV[i], ARGV[i + 1])
end
local held = redis.call('HGETALL', KEYS[7])
for i = 1, #held, 2 do
  local id = held[i]
  if not named[id] and id >= ARGV[10] and id <= ARGV[11] then remove(id, held[i + 1], false) end
end
redis.call('ZADD', KEYS[2], ms(now), ARGV[9])
keep()
return finish()
