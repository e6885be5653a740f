-- Goes before every script of the ledger.
--
-- A job is a hash  <prefix>:job:<id>            state, attempt, task, queue, params, ...
--   its history    <prefix>:job:<id>:events     list of transitions, capped; the first is implied
-- Transitions are in <prefix>:events:<0..63>      capped streams of all jobs' transitions, for
--                                                  those who wait: a stream for each job would
--                                                  take 4 kB of it
-- A queue has      <prefix>:queue:<q>:queued    sorted set, id -> when it was submitted
--                  <prefix>:queue:<q>:running   sorted set, id -> when its attempt started
--                  <prefix>:queue:<q>:stats     hash: finished:<state> -> count, mean_run_s,
--                                                and of a bulk queue mean_item_s
-- The leases are     <prefix>:leases              sorted set, id -> until when its attempt is alive
-- A batch is a hash   <prefix>:batch:<id>          task, messages, most (items of a message),
--                                                  items, items_completed, items_failed,
--                                                  <terminal state> -> messages
-- Dead letters are   <prefix>:dead                sorted set, id -> when it was given up
-- KEYS[1] is the job. ARGV[1] is the prefix, ARGV[2] the job's id.

local job = KEYS[1]
local prefix, id = ARGV[1], ARGV[2]

local leases = prefix .. ':leases'
local dead = prefix .. ':dead'
local MOST_DEAD = 10000
local SHARDS = 64
local MOST_EVENTS = 1000 -- of each shard
local MOST_HISTORY = 100

local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end

local function stamp(t)
  return string.format('%.6f', t)
end

local function queue_key(queue, part)
  return prefix .. ':queue:' .. queue .. ':' .. part
end

-- Tell those who wait, and keep it in the job's history.
local function event(state, attempt, code)
  local shard = tonumber(string.sub(redis.sha1hex(id), 1, 2), 16) % SHARDS
  local stream = prefix .. ':events:' .. shard
  redis.call('XADD', stream, 'MAXLEN', '~', MOST_EVENTS, '*', 'id', id, 'state', state)
  if state ~= 'queued' and state ~= 'running' then redis.call('EXPIRE', stream, 3600) end
  if attempt == 0 and state == 'queued' then return end -- its record says when that was
  local length = redis.call('RPUSH', job .. ':events',
    table.concat({state, attempt, code or '', stamp(now())}, ' '))
  if length > MOST_HISTORY then redis.call('LTRIM', job .. ':events', -MOST_HISTORY, -1) end
end

-- Put an id on the list of dead letters; those that outlived their records leave it, and the
-- oldest when they are too many.
local function bury(letter, t, retention_s)
  redis.call('ZADD', dead, stamp(t), letter)
  redis.call('ZREMRANGEBYSCORE', dead, '-inf', stamp(t - retention_s))
  for _, oldest in ipairs(redis.call('ZRANGE', dead, 0, -MOST_DEAD - 1)) do
    redis.call('DEL', prefix .. ':letter:' .. oldest)
  end
  redis.call('ZREMRANGEBYRANK', dead, 0, -MOST_DEAD - 1)
  redis.call('EXPIRE', dead, retention_s)
end

-- Back to its old place in the queue: the attempt is over, the job is not.
-- The attempt number is the fence and only grows; what does not count is kept apart.
local function put_back(queue, attempt, counts, created_at, code)
  if not counts then redis.call('HINCRBY', job, 'uncounted', 1) end
  redis.call('HSET', job, 'state', 'queued', 'sent_at', stamp(now()))
  redis.call('ZREM', queue_key(queue, 'running'), id)
  redis.call('ZREM', leases, id)
  redis.call('ZADD', queue_key(queue, 'queued'), created_at, id)
  event('queued', attempt, code)
end

-- Move a mean towards a new value.
local function average(stats, field, value, part)
  local mean = tonumber(redis.call('HGET', stats, field) or value)
  redis.call('HSET', stats, field, stamp(mean + part * (value - mean)))
end

-- The one way into a terminal state: record it, leave the queue, count, start the retention.
-- Of a bulk job, `completed` of its items have results; without, none has.
local function finish(queue, attempt, state, field, payload, code, retention_s, completed)
  local t = now()
  local outcome = field ~= '' and {field, payload} or {}
  redis.call('HSET', job, 'state', state, 'finished_at', stamp(t), unpack(outcome))
  redis.call('ZREM', queue_key(queue, 'queued'), id)
  local started = redis.call('ZSCORE', queue_key(queue, 'running'), id)
  redis.call('ZREM', queue_key(queue, 'running'), id)
  redis.call('ZREM', leases, id)
  redis.call('HDEL', job, 'alone', 'sent_at')
  local stats = queue_key(queue, 'stats')
  redis.call('HINCRBY', stats, 'finished:' .. state, 1)
  if state == 'succeeded' then redis.call('HDEL', job, 'failure') end -- of a sweep that was hasty
  local others = redis.call('HMGET', job, 'idempotency', 'batch', 'items')
  if state == 'succeeded' and started then
    average(stats, 'mean_run_s', t - started, 0.05)
    if others[3] then average(stats, 'mean_item_s', (t - started) / others[3], 0.2) end
  end
  event(state, attempt, code)
  redis.call('EXPIRE', job, retention_s)
  redis.call('EXPIRE', job .. ':events', retention_s)
  -- What others know the job by lives as long as it; a batch as long as the last of its jobs.
  if others[1] then redis.call('EXPIRE', others[1], retention_s) end
  local batch = others[2]
  if batch then
    redis.call('HINCRBY', batch, state, 1)
    redis.call('HINCRBY', batch, 'items_completed', completed or 0)
    redis.call('HINCRBY', batch, 'items_failed', others[3] - (completed or 0))
    redis.call('EXPIRE', batch, retention_s)
  end
end

-- A job that was never started and whose time is up is expired; says whether it was.
-- An attempt that did not count, because no model host was there, has not started it.
local function expire(state, attempt, uncounted, queue, expires_at, retention_s)
  if state ~= 'queued' or not expires_at then return false end
  if attempt > tonumber(uncounted or 0) then return false end
  if now() < tonumber(expires_at) then return false end
  finish(queue, attempt, 'expired', '', '', 'expired', retention_s)
  return true
end
