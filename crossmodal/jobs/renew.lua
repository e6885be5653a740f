-- Renew the leases of jobs that a worker runs, or end them because their process has died.
-- reads and writes: the jobs' states and workers, the leases of all running attempts
-- KEYS[1]: the leases. ARGV 2 the worker, 3 lease_s or '' to end them, 4 ... ids of jobs
-- returns {'ok'}
local worker, lease_s = ARGV[2], tonumber(ARGV[3])
for i = 4, #ARGV do
  local r = redis.call('HMGET', prefix .. ':job:' .. ARGV[i], 'state', 'worker')
  -- A worker that only looked at a message has no say in the attempt of another.
  if r[1] == 'running' and r[2] == worker then
    if lease_s then
      redis.call('ZADD', leases, stamp(now() + lease_s), ARGV[i])
    else
      redis.call('ZREM', leases, ARGV[i])
    end
  end
end
return {'ok'}
