-- Acquire or renew a batch runner's lease on an HTTP batch job, or end that lease.
-- reads and writes: the batch's lease
-- KEYS[1]: the lease. ARGV 3 the holder, 4 milliseconds, 0 to end it
-- returns 1, or 0 if another runner holds it
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[3] then return 0 end
if ARGV[4] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
return 1
