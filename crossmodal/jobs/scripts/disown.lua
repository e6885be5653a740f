-- Return a stopped worker's running jobs to the queue; these attempts do not count.
-- reads and writes: the queue's running and queued sets; the jobs in it, their events and leases
-- KEYS[1]: the queue's running set. ARGV 2 the worker, 3 the queue, 4 code
-- returns the ids of the jobs
local worker, queue, code = ARGV[2], ARGV[3], ARGV[4]
local ids = {}
for _, running in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  id, job = running, prefix .. ':job:' .. running
  local r = redis.call('HMGET', job, 'state', 'worker', 'attempt', 'created_at')
  if r[1] == 'running' and r[2] == worker then
    put_back(queue, r[3], false, r[4], code)
    ids[#ids + 1] = id
  end
end
return ids
