-- Expire a job whose start deadline has passed, so that it ends even without workers.
-- reads and writes: the job, its events, its queue's queued and running sets and stats, its owner's
--   lists, what the owner has in its queue, its batch, a delivery
-- ARGV 3 retention_s
-- returns {'expired'} or {'unchanged'}
local r = redis.call('HMGET', job, 'state', 'attempt', 'queue', 'expires_at', 'uncounted')
if not r[1] then return {'unchanged'} end
if expire(r[1], tonumber(r[2]), r[5], r[3], r[4], ARGV[3]) then return {'expired'} end
return {'unchanged'}
