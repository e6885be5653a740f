-- Begin an attempt, if there is still one to begin.
-- reads and writes: the job, its events, its queue's queued and running sets and stats
-- ARGV 3 worker, 4 max_attempts, 5 '1' when the message was delivered before, 6 retention_s
-- returns {'run', attempt, params, created_at, started_at, 1 when it is the last}, {'unknown'}, {'busy', attempt},
--   {'exhausted', attempt} or {<terminal state>, attempt}
local worker, max_attempts, redelivered = ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'
local retention_s = ARGV[6]

local r = redis.call('HMGET', job, 'state', 'attempt', 'queue', 'params', 'created_at',
  'expires_at', 'failure', 'uncounted')
local state, queue = r[1], r[3]
if not state then return {'unknown'} end
local attempt = tonumber(r[2])
if state ~= 'queued' and state ~= 'running' then return {state, attempt} end
if expire(state, attempt, r[8], queue, r[6], retention_s) then return {'expired', attempt} end
-- A second message for a job that runs is a duplicate. One that Redis gave out before is
-- that of a worker which died with it, and its attempt died too.
if state == 'running' and not redelivered then return {'busy', attempt} end

local counted = attempt - tonumber(r[8] or 0)
if counted >= max_attempts then
  local failure = r[7] or cjson.encode({code = 'worker_lost', retryable = true,
    message = 'the worker process died in each of ' .. attempt .. ' attempts'})
  finish(queue, attempt, 'failed', 'failure', failure, cjson.decode(failure).code, retention_s)
  return {'exhausted', attempt}
end

local t = now()
attempt = attempt + 1
redis.call('HSET', job, 'state', 'running', 'attempt', attempt, 'worker', worker,
  'started_at', stamp(t))
redis.call('HDEL', job, 'failure')
redis.call('ZREM', queue_key(queue, 'queued'), id)
redis.call('ZADD', queue_key(queue, 'running'), stamp(t), id)
event('running', attempt)
return {'run', attempt, r[4], r[5], stamp(t), counted + 1 >= max_attempts and 1 or 0}
