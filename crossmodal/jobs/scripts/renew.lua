-- Renew the leases of jobs that a worker runs, or end them because the attempts have died.
-- reads and writes: the jobs' states, workers and failures, the leases of all running attempts
-- KEYS[1]: the leases. ARGV 2 the worker, 3 lease_s or '' to end them, 4 the failure as JSON or '',
--   5 ... ids of jobs
-- returns {'ok'}
local worker, lease_s, failure = ARGV[2], tonumber(ARGV[3]), ARGV[4]
for i = 5, #ARGV do
  local running = prefix .. ':job:' .. ARGV[i]
  local r = redis.call('HMGET', running, 'state', 'worker')
  -- A worker must not change the lease of another worker's attempt.
  if r[1] == 'running' and r[2] == worker then
    if lease_s then
      redis.call('ZADD', leases, stamp(now() + lease_s), ARGV[i])
    else
      redis.call('ZREM', leases, ARGV[i])
      if failure ~= '' then redis.call('HSET', running, 'failure', failure) end
    end
  end
end
return {'ok'}
