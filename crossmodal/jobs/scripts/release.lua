-- Give up a running attempt and return the job to its old place in the queue.
-- reads and writes: the job, its events, its queue's queued and running sets, its lease
-- ARGV 3 attempt, 4 '1' if the attempt counts, 5 failure as JSON, 6 its code,
--   7 '1' if the next attempt must be alone in its batch
-- returns {'ok'} or {'refused', state, attempt}
local r = redis.call('HMGET', job, 'state', 'attempt', 'queue', 'created_at')
if r[1] ~= 'running' or r[2] ~= ARGV[3] then
  return {'refused', r[1] or 'unknown', r[2] or '0'}
end
redis.call('HSET', job, 'failure', ARGV[5])
if ARGV[7] == '1' then redis.call('HSET', job, 'alone', 1) end
if ARGV[4] ~= '1' and ARGV[6] == 'model_host_crashed' then
  redis.call('HINCRBY', job, 'excused', 1) -- the caller limits how often a job is excused
end
put_back(r[3], r[2], ARGV[4] == '1', r[4], ARGV[6])
return {'ok'}
