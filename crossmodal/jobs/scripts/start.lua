-- Begin an attempt, unless the job has ended, is running, is paused or has no attempts left.
-- reads and writes: the job, its events, its lease, its queue's queued and running sets and stats,
--   dead letters, its owner's lists, what the owner has in its queue, its batch, a delivery
-- ARGV 3 worker, 4 max_attempts, 5 lease_s, 6 retention_s, 7 max messages of one
--   owner in the queue, 8 '1' if the worker retries after a lost reply
-- returns {'run', attempt, params, created_at, started_at, counted attempts, excused attempts
--   (a model host died), 1 if it must be alone in its batch, traceparent or ''},
--   {'unknown'}, {'paused', attempt},
--   {'busy', attempt}, {'exhausted', attempt} or {<terminal state>, attempt}
local worker, max_attempts, lease_s = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local retention_s = ARGV[6]

local r = redis.call('HMGET', job, 'state', 'attempt', 'queue', 'params', 'created_at',
  'expires_at', 'failure', 'uncounted', 'alone', 'excused',
  'owner', 'webhook', 'traceparent', 'worker', 'started_at')
local state, queue = r[1], r[3]
if not state then return {'unknown'} end
local attempt = tonumber(r[2])
if expire(state, attempt, r[8], queue, r[6], retention_s) then state = 'expired' end
if state == 'queued' and is_paused(queue) then return {'paused', attempt} end
if r[11] and redis.call('SREM', queue_key(queue, 'sent:' .. r[11]), id) == 1 then
  promote(queue, tonumber(ARGV[7]))
end
if state ~= 'queued' and state ~= 'running' then return {state, attempt} end
local counted = attempt - tonumber(r[8] or 0)
local function run(started_at, counts)
  redis.call('ZADD', leases, stamp(now() + lease_s), id)
  return {'run', attempt, r[4], r[5], started_at, counts, tonumber(r[10] or 0), r[9] and 1 or 0,
    r[13] or ''}
end
if ARGV[8] == '1' and state == 'running' and r[14] == worker then return run(r[15], counted) end

-- A second message for a running job must wait: the attempt may still die with its worker.
if state == 'running' and lasts(redis.call('ZSCORE', leases, id), lease_s) then
  return {'busy', attempt}
end

local is_exhausted = counted >= max_attempts
local failure, code = r[7], nil
if state == 'running' or is_exhausted then
  failure = failure or cjson.encode({code = 'worker_lost', retryable = true,
    message = 'the process that ran attempt ' .. attempt .. ' died'})
  code = cjson.decode(failure).code
end
if state == 'running' then event('queued', attempt, code) end -- the dead worker could not record it
if is_exhausted then
  finish(queue, attempt, 'failed', 'failure', failure, code, retention_s)
  bury(id, now(), tonumber(retention_s))
  return {'exhausted', attempt}
end

local t = now()
if r[11] then uncount_waiting(queue, r[11]) end
attempt = attempt + 1
redis.call('HSET', job, 'state', 'running', 'attempt', attempt, 'worker', worker,
  'started_at', stamp(t))
if attempt > 1 then redis.call('HDEL', job, 'failure', 'progress') end
redis.call('ZREM', queue_key(queue, 'queued'), id)
redis.call('ZADD', queue_key(queue, 'running'), stamp(t), id)
if attempt > 1 then redis.call('HINCRBY', queue_key(queue, 'stats'), 'redelivered', 1) end
event('running', attempt)
if r[12] then hook(r[12], 'running', attempt, '', retention_s) end
return run(stamp(t), counted + 1)
