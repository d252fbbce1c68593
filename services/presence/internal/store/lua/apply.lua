-- Sessions that came and went. ARGV 9 gateway, 10 how long gone ids are remembered (ms), then id, user, kind:
-- 0 came, 1 gone, 2 gone deliberately.
own()
redis.call('ZREMRANGEBYSCORE', KEYS[8], '-inf', ms(now - tonumber(ARGV[10])))
local came = false
for i = 11, #ARGV, 3 do
  local id, user, kind = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if kind == '0' then
    came = true
    add(id, user)
  elseif not redis.call('ZSCORE', KEYS[8], id) then
    redis.call('ZADD', KEYS[8], ms(now), id)
    local holder = redis.call('HGET', KEYS[7], id)
    if holder then remove(id, holder, kind == '2') end
  end
end
-- Who brings sessions is alive; who only takes them away may be a late word of a gateway that is gone.
if came then redis.call('ZADD', KEYS[2], ms(now), ARGV[9]) end
keep()
return finish()
