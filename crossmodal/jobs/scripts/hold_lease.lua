-- Acquire or renew a lease that one process has at a time, or end it.
-- reads and writes: the lease, as 'until holder'
-- KEYS[1]: the lease. ARGV 2 what it is of, 3 the holder, 4 its seconds, 5 '1' to end it
-- returns 1, or 0 if another process holds it
local who, lease_s = ARGV[3], tonumber(ARGV[4])
local until_t, holder = string.match(redis.call('GET', KEYS[1]) or '', '^([%d.]+) (.*)$')
if holder ~= who and lasts(until_t, lease_s) then return 0 end -- whatever the key's own expiry
if ARGV[5] == '1' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], stamp(now() + lease_s) .. ' ' .. who, 'EX', math.ceil(lease_s))
end
return 1
