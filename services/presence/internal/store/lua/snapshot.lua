-- Everybody who is announced as online.
local names = redis.call('HKEYS', KEYS[3])
for _, user in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do names[#names + 1] = user end
return finish(names)
