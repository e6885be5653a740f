-- Create a job, unless it exists, its idempotency key is taken, or its queue is full.
-- reads and writes: the job, its events, its owner's lists, what the owner has in the queue, the
--   queue's queued set and list of messages, the idempotency key, the batch
-- KEYS[2]: idempotency key, or the job's own key if there is none
-- ARGV 3 task, 4 queue, 5 params, 6 fingerprint, 7 expires_in_s or '', 8 max_queue_length or '',
--   9 the message to send, or '' if it was sent before, 10 its batch or '', 11 its number in the
--   batch, 12 its number of items, 13 max items per message of its queue, 14 its owner or '',
--   15 max waiting jobs of the owner or '', 16 max messages of one owner in the queue,
--   17 traceparent or '', 18 webhook as JSON or '', 19 priority, 20 seconds to keep its record
--   or '', 21 '1' if a paused queue refuses it
-- returns {'created' | 'existing' | 'conflict', id}, {'canceled', the batch}, {'paused'},
--   {'full', depth, messages, running, mean_run_s, mean_gap_s} or
--   {'owner_full', the owner's waiting jobs}
local task, queue, params, fingerprint = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local expires_in_s, max_queue_length = tonumber(ARGV[7]), tonumber(ARGV[8])
local idempotency = KEYS[2]
local owner, max_queued, window = ARGV[14], tonumber(ARGV[15]), tonumber(ARGV[16])
local priority = tonumber(ARGV[19])

if idempotency ~= job then
  local known = redis.call('HMGET', idempotency, 'id', 'fingerprint')
  if known[1] then
    return {known[2] == fingerprint and 'existing' or 'conflict', known[1]}
  end
end
if redis.call('EXISTS', job) == 1 then return {'existing', id} end
local batch = prefix .. ':batch:' .. ARGV[10]
if ARGV[10] ~= '' and redis.call('HGET', batch, 'is_canceled') then
  return {'canceled', ARGV[10]}
end

if ARGV[21] == '1' and is_paused(queue) then return {'paused'} end
local queued = queue_key(queue, 'queued')
local depth = redis.call('ZCARD', queued)
-- The messages of canceled jobs stay in the list until a worker takes them.
local messages = 0
for _, level in ipairs(LEVELS) do
  messages = messages + redis.call('LLEN', messages_key(queue, level))
end
local is_full = max_queue_length
  and (depth >= max_queue_length or messages >= 2 * max_queue_length + MOST_STALE)
if is_full then
  local means = redis.call('HMGET', queue_key(queue, 'stats'), 'mean_run_s', 'mean_gap_s')
  return {'full', depth, messages, redis.call('ZCARD', queue_key(queue, 'running')),
    means[1] or '', means[2] or ''}
end

if owner ~= '' and max_queued then
  local waiting = tonumber(redis.call('HGET', queue_key(queue, 'waiting'), owner) or 0)
  if waiting >= max_queued then return {'owner_full', waiting} end
end

local t = now()
redis.call('HSET', job, 'task', task, 'queue', queue, 'state', 'queued', 'attempt', 0,
  'params', params, 'created_at', stamp(t))
if expires_in_s then redis.call('HSET', job, 'expires_at', stamp(t + expires_in_s)) end
if idempotency ~= job then
  redis.call('HSET', idempotency, 'id', id, 'fingerprint', fingerprint)
  redis.call('HSET', job, 'idempotency', idempotency)
end
if owner ~= '' then
  redis.call('HSET', job, 'owner', owner)
  count_waiting(queue, owner)
end
if ARGV[17] ~= '' then redis.call('HSET', job, 'traceparent', ARGV[17]) end
if ARGV[18] ~= '' then redis.call('HSET', job, 'webhook', ARGV[18]) end
if priority ~= 0 then redis.call('HSET', job, 'priority', priority) end
if ARGV[20] ~= '' then redis.call('HSET', job, 'keep_s', ARGV[20]) end
if ARGV[10] == '' then
  local list = prefix .. ':jobs:' .. owner
  redis.call('ZADD', list, stamp(t), id)
  if redis.call('PERSIST', list) == 1 then redis.call('PERSIST', list .. ':ended') end
else
  redis.call('HSET', job, 'batch', batch, 'items', ARGV[12])
  local known = redis.call('HGET', batch, 'task')
  local kind = known and known ~= task and 'mixed' or task
  redis.call('HSET', batch, 'task', kind, 'owner', owner)
  redis.call('HSETNX', batch, 'most:' .. queue, ARGV[13])
  if tonumber(ARGV[11]) >= tonumber(redis.call('HGET', batch, 'messages') or 0) then
    redis.call('HSET', batch, 'messages', ARGV[11] + 1)
    redis.call('HINCRBY', batch, 'items', ARGV[12])
  else -- a rerun: its earlier record has expired, and its end was counted
    redis.call('HSET', job, 'again', 1)
    redis.call('HINCRBY', batch, 'again', 1)
  end
  redis.call('PERSIST', batch)
end
redis.call('ZADD', queued, stamp(t), id)
event('queued', 0)
redis.call('HINCRBY', queue_key(queue, 'stats'), 'submitted', 1)
if ARGV[9] ~= '' then send(queue, owner, window, ARGV[9], priority) end
return {'created', id}
