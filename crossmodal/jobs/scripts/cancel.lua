-- Cancel a job that has not ended; the result of a running attempt will be refused.
-- reads and writes: the job, its events, its queue's queued and running sets and stats, its owner's
--   lists, what the owner has in its queue, its batch, a delivery
-- ARGV 3 retention_s
-- returns {the state the job is in now} or {'unknown'}
local r = redis.call('HMGET', job, 'state', 'attempt', 'queue')
if not r[1] then return {'unknown'} end
if r[1] ~= 'queued' and r[1] ~= 'running' then return {r[1]} end
finish(r[3], tonumber(r[2]), 'canceled', '', '', 'canceled', ARGV[3])
return {'canceled'}
