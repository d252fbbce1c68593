-- What every script begins with: the state of one shard, and the two ways in which time or data can be lost.
--
-- KEYS 1 meta   hash: epoch, version, settle (ms when settling began), at (ms of the last script), and while it settles
--               late:<gateway> -> ms, for those who have called but not registered all their sessions
--      2 lease  zset: gateway -> ms of its last heartbeat
--      3 users  hash: user -> number of sessions that gateways with a lease hold
--      4 grace  zset: user without sessions, still announced online -> ms when the last one went
--      5 seen   zset: user -> ms when last online
--      6 marks  zset: presence replica -> its last mark
--      7 sess   hash: session -> user            } of the one gateway that the script is about
--      8 gone   zset: session -> ms when it went }
--      9 sum    hash: epoch, n, hi, lo           }
-- ARGV 1 replica, 2 epoch and 3 mark that the replica saw last, 4 a random epoch in case one is needed,
--      5 lease, 6 grace, 7 settle, 8 gap (ms)
-- Announced as online are the users in "users" and in "grace"; no user is in both.
-- The only clock is this server's. Time to live is used to throw away garbage, never to decide anything.
local function ms(n) return string.format('%.0f', n) end
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local replica, lease, grace, settle, gap = ARGV[1], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'version', 'settle', 'at')
local epoch, version = meta[1], tonumber(meta[2] or '0')
local since, at = tonumber(meta[3] or '0'), tonumber(meta[4] or '0')
local mark = tonumber(redis.call('ZSCORE', KEYS[6], replica) or '0')
local first, changes, settling = version, {}, false
local notice = 0 -- 1: the epoch is new, 2: it has settled, 3: both

-- A new epoch: what is stored cannot be trusted, so gateways register again. What they had under the old epoch is
-- thrown away when they next call (see own below), as its keys are not known here.
local function renew()
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6])
  epoch, version, first, since, at, mark, notice = ARGV[4], 0, 0, now, now, 0, 1
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'version', '0', 'settle', ms(now))
end

-- A failover to a server that lagged forgets writes that were confirmed to this replica. And when no script ran for so long that sessions have
-- expired (see keep), users' counts have nothing under them.
if not epoch or (ARGV[2] == epoch and mark < tonumber(ARGV[3])) or now - at > 1800000 then renew() end

-- First write of all: a server that is out of memory refuses it, and with it the whole script, instead of a half of it.
local function stamp()
  if mark >= now then mark = mark + 1 else mark = now end
  redis.call('ZADD', KEYS[6], ms(mark), replica)
end
stamp()

-- Time in which nobody could renew anything (an outage, or a server with another clock) does not count.
local function shift(key, d)
  local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for i = 1, #all, 2 do redis.call('ZADD', key, ms(tonumber(all[i + 1]) + d), all[i]) end
end
if now - at > gap or at - now > gap then
  shift(KEYS[2], now - at)
  shift(KEYS[4], now - at)
  if since > 0 then
    since = since + now - at
    redis.call('HSET', KEYS[1], 'settle', ms(since))
  end
end

-- A shard that settles waits for gateways that are slow, but not for ever: until then it is unknown, afterwards it would be wrong.
local function late()
  local meta = redis.call('HGETALL', KEYS[1])
  for i = 1, #meta, 2 do
    if string.sub(meta[i], 1, 5) == 'late:' and tonumber(meta[i + 1]) + lease > now then return true end
  end
  return false
end

local function begin()
  settling = since > 0 and (now < since + settle or now < since + 3 * settle and late())
  if since > 0 and not settling then
    redis.call('DEL', KEYS[1]) -- with all that were late; finish and this write the rest again
    redis.call('HSET', KEYS[1], 'epoch', epoch)
    since, notice = 0, notice + 2
  end
end
begin()

local function announce(user, on, last)
  if settling then return end
  version = version + 1
  changes[#changes + 1] = user
  changes[#changes + 1] = on
  changes[#changes + 1] = ms(last)
end

local function online(user)
  if redis.call('HINCRBY', KEYS[3], user, 1) == 1 and redis.call('ZREM', KEYS[4], user) == 0 then
    announce(user, 1, 0)
  end
end

local function offline(user, last)
  redis.call('ZADD', KEYS[5], ms(last), user)
  announce(user, 0, last)
end

-- One session of user less. last is when it was last known to be there; deliberate means no grace.
local function leave(user, last, deliberate)
  if redis.call('HINCRBY', KEYS[3], user, -1) > 0 then return end
  redis.call('HDEL', KEYS[3], user)
  if deliberate or last + grace <= now then
    offline(user, last)
  else
    redis.call('ZADD', KEYS[4], ms(last), user)
  end
end

-- The sum over a gateway's sessions here: how many, and the halves of their ids added up. (Addition, because not every
-- server has Lua's bit library.)
local n, hi, lo = 0, 0, 0
local function own()
  local sum = redis.call('HMGET', KEYS[9], 'epoch', 'n', 'hi', 'lo')
  if sum[1] == epoch then
    n, hi, lo = tonumber(sum[2]), tonumber(sum[3]), tonumber(sum[4])
  else
    redis.call('DEL', KEYS[7], KEYS[8], KEYS[9])
  end
end
local function count(id, by)
  n = n + by
  hi = (hi + by * tonumber(string.sub(id, 1, 8), 16)) % 4294967296
  lo = (lo + by * tonumber(string.sub(id, 9, 16), 16)) % 4294967296
end
local function keep()
  redis.call('HSET', KEYS[9], 'epoch', epoch, 'n', ms(n), 'hi', ms(hi), 'lo', ms(lo))
  -- An hour without a call: left behind by an epoch that ended, which it has after half of that without any script.
  for i = 7, 9 do redis.call('PEXPIRE', KEYS[i], 3600000) end
end
local function add(id, user)
  if redis.call('ZSCORE', KEYS[8], id) or redis.call('HSETNX', KEYS[7], id, user) == 0 then return end
  count(id, 1)
  online(user)
end
local function remove(id, user, deliberate)
  redis.call('HDEL', KEYS[7], id)
  count(id, -1)
  leave(user, now, deliberate)
end

local function finish(more)
  redis.call('HSET', KEYS[1], 'version', ms(version), 'at', ms(now))
  return { epoch, ms(mark), ms(first), ms(version), settling and 1 or 0, notice, changes, more or {} }
end
