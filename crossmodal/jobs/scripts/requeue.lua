-- Send a message for a job whose message got lost, unless another sweep has just done so.
-- reads and writes: the job, its lease, its queue's list of messages of its priority
-- ARGV 3 attempt, 4 sent_at or '', 5 the queue, 6 the message, 7 lease_s
-- returns {'ok'} or {'refused', state}
local r = redis.call('HMGET', job, 'state', 'attempt', 'sent_at', 'owner', 'priority')
local runs = r[1] == 'running' and lasts(redis.call('ZSCORE', leases, id), tonumber(ARGV[7]))
if (r[1] ~= 'queued' and r[1] ~= 'running') or runs or r[2] ~= ARGV[3]
  or (r[3] or '') ~= ARGV[4] then
  return {'refused', r[1] or 'unknown'}
end
redis.call('HSET', job, 'sent_at', stamp(now()))
local priority = r[4] and 0 or tonumber(r[5] or 0) -- an owner's priority orders its backlog only
redis.call('RPUSH', messages_key(ARGV[5], priority), ARGV[6])
return {'ok'}
