-- Admit a call of an owner, or return how long to wait: the generic cell rate algorithm
-- (ITU-T I.371), whose state is one number.
-- reads and writes: the theoretical arrival time of the owner's next call
-- KEYS[1]: that time. ARGV 2 the owner, 3 calls per second, 4 burst size
-- returns '' or seconds to wait
local every = 1 / tonumber(ARGV[3])
local t = now()
local at_once = every * tonumber(ARGV[4])
local until_t = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), t)
if until_t > t + at_once + every then until_t = t end -- the clock was put back
local wait = until_t + every - t - at_once
if wait > 0 then return stamp(wait) end
redis.call('SET', KEYS[1], stamp(until_t + every), 'EX', math.ceil(until_t + every - t) + 1)
return ''
