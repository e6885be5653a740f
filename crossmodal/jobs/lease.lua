-- Acquire or renew a lease that one process has at a time, or end it.
-- reads and writes: the lease, as 'until holder'
-- KEYS[1]: the lease. ARGV 2 what it is of, 3 the holder, 4 its seconds, 5 '1' to end it
-- returns 1, or 0 if another process holds it
local who, lease_s = ARGV[3], tonumber(ARGV[4])
local until_t, holder = string.match(redis.call('GET', KEYS[1]) or '', '^([%d.]+) (.*)$')
local left_s = tonumber(until_t or 0) - now()
-- A longer lease predates a step back of Redis's clock, as the expiry of its key does.
if holder ~= who and left_s > 0 and left_s <= 2 * lease_s then return 0 end
if ARGV[5] == '1' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], stamp(now() + lease_s) .. ' ' .. who, 'EX', math.ceil(lease_s))
end
return 1
