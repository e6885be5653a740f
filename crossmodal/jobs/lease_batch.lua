-- Lease a batch that came over HTTP to who runs it, for another while, or end that lease.
-- reads and writes: the batch's lease
-- KEYS[1]: the lease. ARGV 3 who, 4 for how many milliseconds, 0 to end it
-- returns 1, or 0 where somebody else holds it
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[3] then return 0 end
if ARGV[4] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
return 1
