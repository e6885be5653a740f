-- The shared prelude of every ledger script.
--
-- A job is a hash  <prefix>:job:<id>            state, attempt, task, queue, params, ...
--                                                  progress: of its latest attempt
--   its history    <prefix>:job:<id>:events     list of transitions, capped; the first is implied
--   watch mark     <prefix>:watched:<id>        expires in seconds; set while a client follows
--                                                  the job's progress
-- Transitions are in <prefix>:events:<0..63>      capped streams that waiting clients read, each
--                                                  shared by many jobs: a stream per job would
--                                                  take 4 kB
-- Paused queues      <prefix>:paused              hash, queue -> when it was paused
-- A queue has      <prefix>:queue:<q>:queued    sorted set, id -> when it was submitted
--                  <prefix>:queue:<q>:running   sorted set, id -> when its attempt started
--                  <prefix>:queue:<q>:stats     hash: submitted, redelivered, finished:<state> and
--                                                failed:<code> -> count; mean_run_s; for a bulk
--                                                queue mean_item_s; to estimate the wait:
--                                                ended_at, gaps, gaps_s and mean_gap_s
-- An owner has     <prefix>:jobs:<owner>        sorted set, id -> when it was submitted
--                  <prefix>:jobs:<owner>:ended  sorted set of the ended ones, id -> when it ended
-- and in a queue   <prefix>:queue:<q>:sent:<owner>     set of ids whose messages are in the queue
--                  <prefix>:queue:<q>:backlog:<owner>  list of held '<id> <message>', priority 0
--                  <prefix>:queue:<q>:backlog:<owner>:1 and :-1  the same for the other priorities
--                  <prefix>:queue:<q>:owners           list of owners with a backlog, round-robin
--                  <prefix>:queue:<q>:waiting          hash, owner -> number of waiting jobs
-- A delivery of a webhook is a hash <prefix>:delivery:<id>, see webhooks.py, and is listed in
--                  <prefix>:deliveries:<owner>  sorted set, id -> when it was created
--                  <prefix>:webhooks:pending    sorted set, id -> when the next try is due
--                  <prefix>:webhooks:clock      the time of a recent claim
-- The leases are     <prefix>:leases              sorted set, id -> when the attempt's lease ends
-- A batch is a hash   <prefix>:batch:<id>          task, messages, most:<q> (items per message),
--                                                  items, items_completed, items_failed,
--                                                  <terminal state> -> messages, again (messages
--                                                  rerun after their records expired),
--                                                  is_canceled
-- Messages are in    <prefix>:celery:<q>        list, Celery's; <q> with the default prefix.
--                                                  Messages without an owner and with a priority
--                                                  other than 0 are in kombu's list for that one
-- Dead letters are   <prefix>:dead                sorted set, id -> when it was given up
--                  <prefix>:dead:<owner>         the same for one owner
-- KEYS[1] is the job. ARGV[1] is the prefix, ARGV[2] the job's id.

local job = KEYS[1]
local prefix, id = ARGV[1], ARGV[2]

local leases = prefix .. ':leases'
local dead = prefix .. ':dead'
local MOST_DEAD = 10000
local SHARDS = 64
local MOST_EVENTS = 1000 -- per shard
local MOST_HISTORY = 100
local MOST_DELIVERIES = 10000 -- per owner
local HOOK_KEPT_S = 345600 -- longer than all tries of a delivery take in total
local MOST_FORGOTTEN = 10 -- ended jobs that one end removes from an owner's list
local MOST_STALE = 100 -- messages of ended jobs that a backlog may hold beyond half of its length
local MOST_GAPS = 256 -- beyond this count, or MOST_GAPS_S seconds, earlier gaps count half
local MOST_GAPS_S = 300
local FEW_GAPS = 16 -- fewer are no evidence: all jobs of a batch end at once

-- Time is frozen while a script runs, so one TIME call is enough.
local clock
local function now()
  if not clock then
    local t = redis.call('TIME')
    clock = tonumber(t[1]) + tonumber(t[2]) / 1000000
  end
  return clock
end

-- Whether a lease lasts. A longer one predates a step back of Redis's clock.
local function lasts(until_t, lease_s)
  local left_s = tonumber(until_t or 0) - now()
  return left_s > 0 and left_s <= 2 * lease_s
end

local function stamp(t)
  return string.format('%.6f', t)
end

-- The key of a queue's list of messages of one priority; see names.py.
local ENDS = {[1] = '\6\22-1', [0] = '', [-1] = '\6\0229'} -- of kombu's lists, by job priority
local function messages_key(queue, priority)
  local list = queue .. ENDS[priority or 0]
  if prefix == 'crossmodal' then return list end
  return prefix .. ':celery:' .. list
end

local function is_paused(queue)
  return redis.call('HEXISTS', prefix .. ':paused', queue) == 1
end

local function queue_key(queue, part)
  return prefix .. ':queue:' .. queue .. ':' .. part
end

-- Publish a state to waiting clients; extra arguments are further fields and their values.
local function tell(state, ...)
  local shard = tonumber(string.sub(redis.sha1hex(id), 1, 2), 16) % SHARDS
  local stream = prefix .. ':events:' .. shard
  redis.call('XADD', stream, 'MAXLEN', '~', MOST_EVENTS, '*', 'id', id, 'state', state, ...)
  if state ~= 'queued' and state ~= 'running' then redis.call('EXPIRE', stream, 3600) end
end

-- The time of the job's latest transition.
local function last_at()
  local last = redis.call('LRANGE', job .. ':events', -1, -1)[1]
  local at = last and string.match(last, '%S+$') or redis.call('HGET', job, 'created_at')
  return tonumber(at) or 0
end

-- Publish a transition and append it to the job's history. Times strictly increase, even if the
-- clock was put back: a reader continues after the time that it has read last.
local function event(state, attempt, code)
  tell(state)
  if attempt == 0 and state == 'queued' then return end -- created_at in the record implies it
  local at = math.max(now(), last_at() + 0.000001)
  local length = redis.call('RPUSH', job .. ':events',
    table.concat({state, attempt, code or '', stamp(at)}, ' '))
  if length > MOST_HISTORY then redis.call('LTRIM', job .. ':events', -MOST_HISTORY, -1) end
end

-- Add an id to the list of dead letters; drop entries past their retention, and the oldest ones
-- beyond the cap.
local function bury(letter, t, retention_s)
  local owner = redis.call('HGET', job, 'owner')
  if owner then
    redis.call('ZADD', dead .. ':' .. owner, stamp(t), letter)
    redis.call('ZREMRANGEBYRANK', dead .. ':' .. owner, 0, -MOST_DEAD - 1)
    redis.call('EXPIRE', dead .. ':' .. owner, retention_s)
  end
  redis.call('ZADD', dead, stamp(t), letter)
  redis.call('ZREMRANGEBYSCORE', dead, '-inf', stamp(t - retention_s))
  for _, oldest in ipairs(redis.call('ZRANGE', dead, 0, -MOST_DEAD - 1)) do
    redis.call('DEL', prefix .. ':letter:' .. oldest)
  end
  redis.call('ZREMRANGEBYRANK', dead, 0, -MOST_DEAD - 1)
  redis.call('EXPIRE', dead, retention_s)
end

-- How many messages of one owner may be in a queue: a batch's worth, divided among the owners
-- with a backlog. The rest are held in backlogs, so that one owner cannot block the others.
local function share(window, owners)
  return math.max(1, math.floor(window / math.max(1, owners)))
end

-- Count an owner's waiting job once, until it starts or ends.
local function count_waiting(queue, owner)
  redis.call('HSET', job, 'counted', 1)
  redis.call('HINCRBY', queue_key(queue, 'waiting'), owner, 1)
end

local function uncount_waiting(queue, owner)
  if redis.call('HDEL', job, 'counted') == 0 then return end
  if redis.call('HINCRBY', queue_key(queue, 'waiting'), owner, -1) <= 0 then
    redis.call('HDEL', queue_key(queue, 'waiting'), owner)
  end
end

-- An owner's backlog is one list per priority, consumed in this order.
local LEVELS = {1, 0, -1}
local function backlog_key(queue, owner, level)
  local key = queue_key(queue, 'backlog:' .. owner)
  return level == 0 and key or key .. ':' .. level
end

local function backlog_length(queue, owner)
  local length = 0
  for _, level in ipairs(LEVELS) do
    length = length + redis.call('LLEN', backlog_key(queue, owner, level))
  end
  return length
end

-- Send a message now, or hold it until its owner's turn. Priority orders messages of the same
-- owner only; messages without an owner are ordered by it in the whole queue.
local function send(queue, owner, window, message, priority)
  if owner == '' then
    redis.call('LPUSH', messages_key(queue, priority), message)
    return
  end
  local sent = queue_key(queue, 'sent:' .. owner)
  local waiting = backlog_length(queue, owner)
  local others = redis.call('LLEN', queue_key(queue, 'owners'))
  if waiting > 0 or redis.call('SCARD', sent) >= share(window, others + 1) then
    redis.call('HSET', job, 'held', 1)
    redis.call('LPUSH', backlog_key(queue, owner, priority), id .. ' ' .. message)
    if waiting == 0 then redis.call('RPUSH', queue_key(queue, 'owners'), owner) end
    return
  end
  redis.call('SADD', sent, id)
  redis.call('LPUSH', messages_key(queue), message)
end

-- The job id and message of a backlog entry; nothing if the job has ended.
local function opened(entry)
  local space = string.find(entry, ' ', 1, true)
  local held, message = string.sub(entry, 1, space - 1), string.sub(entry, space + 1)
  if redis.call('HGET', prefix .. ':job:' .. held, 'state') == 'queued' then
    return held, message
  end
end

-- Pop an owner's next message from the backlog, dropping those of ended jobs.
local function next_held(queue, owner)
  local tries = 1000
  for _, level in ipairs(LEVELS) do
    local backlog = backlog_key(queue, owner, level)
    local entry = redis.call('RPOP', backlog)
    while entry do
      local held, message = opened(entry)
      if held then return held, message end
      tries = tries - 1
      if tries == 0 then return end
      entry = redis.call('RPOP', backlog)
    end
  end
end

-- Drop the messages of ended jobs once they are most of an owner's backlog: no limit counts
-- them, and without workers nothing consumes them. Keep at least one: `promote` removes the owner
-- from the list of waiting owners when it pops the last one.
local function tidy(queue, owner)
  local left = backlog_length(queue, owner)
  local waiting = tonumber(redis.call('HGET', queue_key(queue, 'waiting'), owner) or 0)
  if left <= 2 * waiting + MOST_STALE then return end
  local kept = 0
  for _, level in ipairs(LEVELS) do
    local backlog = backlog_key(queue, owner, level)
    for _ = 1, redis.call('LLEN', backlog) do
      local entry = redis.call('RPOP', backlog)
      if opened(entry) or (left == 1 and kept == 0) then
        redis.call('LPUSH', backlog, entry)
        kept = kept + 1
      end
      left = left - 1
    end
  end
end

-- Send the next held message of the next owner in turn that has a free slot.
local function promote(queue, window)
  local owners = queue_key(queue, 'owners')
  local count = redis.call('LLEN', owners)
  for _ = 1, count do
    local owner = redis.call('LPOP', owners)
    local sent = queue_key(queue, 'sent:' .. owner)
    local held, message
    if redis.call('SCARD', sent) < share(window, count) then
      held, message = next_held(queue, owner)
    end
    if backlog_length(queue, owner) > 0 then
      redis.call('RPUSH', owners, owner)
    end
    if held then
      redis.call('HDEL', prefix .. ':job:' .. held, 'held')
      redis.call('HSET', prefix .. ':job:' .. held, 'sent_at', stamp(now()))
      redis.call('SADD', sent, held)
      redis.call('LPUSH', messages_key(queue), message)
      return true
    end
  end
  return false
end

-- Seconds to keep a delivery's record: at least until its last retry.
local function hook_kept(retention_s)
  return math.max(HOOK_KEPT_S, tonumber(retention_s))
end

-- Count deliveries whose records expired before their last retry as failed.
local function count_lost(deliveries)
  if deliveries > 0 then
    redis.call('HINCRBY', prefix .. ':webhooks:stats', 'failed', deliveries)
  end
end

-- Create a webhook delivery for a transition, if the job's webhook subscribes to it.
local function hook(text, state, attempt, code, retention_s)
  local asked = cjson.decode(text)
  local wanted = false
  for _, kind in ipairs(asked.events) do wanted = wanted or kind == 'job.' .. state end
  if not wanted then return end
  local t = now()
  local delivery = 'wh_' .. id .. '.' .. state .. '.' .. attempt
  local key = prefix .. ':delivery:' .. delivery
  local owner = redis.call('HGET', job, 'owner') or ''
  redis.call('HSET', key, 'job', id, 'task', redis.call('HGET', job, 'task'), 'state', state,
    'attempt', attempt, 'code', code or '', 'owner', owner, 'url', asked.url, 'base', asked.base,
    'created_at', stamp(t), 'outcome', 'pending', 'tries', 0)
  redis.call('EXPIRE', key, hook_kept(retention_s))
  local list = prefix .. ':deliveries:' .. owner
  redis.call('ZADD', list, stamp(t), delivery)
  redis.call('ZREMRANGEBYRANK', list, 0, -MOST_DELIVERIES - 1)
  redis.call('EXPIRE', list, hook_kept(retention_s))
  local pending = prefix .. ':webhooks:pending'
  count_lost(redis.call('ZREMRANGEBYSCORE', pending, '-inf', stamp(t - hook_kept(retention_s))))
  redis.call('ZADD', pending, stamp(t), delivery)
end

-- Return a job to its old place in the queue: the attempt is over, the job is not.
-- The attempt number is the fence and only grows; attempts that don't count are in `uncounted`.
local function put_back(queue, attempt, counts, created_at, code)
  if not counts then redis.call('HINCRBY', job, 'uncounted', 1) end
  redis.call('HSET', job, 'state', 'queued', 'sent_at', stamp(now()))
  redis.call('ZREM', queue_key(queue, 'running'), id)
  redis.call('ZREM', leases, id)
  redis.call('ZADD', queue_key(queue, 'queued'), created_at, id)
  event('queued', attempt, code)
end

-- Note a job's end in its owner's list, which drops a job when its record expires. The list itself
-- expires once all its jobs have ended. The score of a job with its own retention is shifted as if
-- it had ended later or earlier.
local function note_end(owner, t, retention_s, kept_s)
  local list = prefix .. ':jobs:' .. owner
  local ended = list .. ':ended'
  redis.call('ZADD', ended, stamp(t + kept_s - retention_s), id)
  local gone = redis.call('ZRANGEBYSCORE', ended, '-inf', stamp(t - retention_s),
    'LIMIT', 0, MOST_FORGOTTEN)
  if #gone > 0 then
    redis.call('ZREM', list, unpack(gone))
    redis.call('ZREM', ended, unpack(gone))
  end
  if redis.call('ZCARD', ended) >= redis.call('ZCARD', list) then
    local latest = tonumber(redis.call('ZREVRANGE', ended, 0, 0, 'WITHSCORES')[2] or t)
    local left_s = math.max(1, math.ceil(latest + retention_s - t))
    redis.call('EXPIRE', list, left_s)
    redis.call('EXPIRE', ended, left_s)
  end
end

-- An exponential moving average, updated with a new value.
local function moved(mean, value, part)
  mean = tonumber(mean or value)
  return stamp(mean + part * (value - mean))
end

-- Estimate the seconds between two starts in a queue with waiting jobs, from the gaps between ends
-- of attempts across all workers. A gap in which no job waited for half of it is no evidence;
-- earlier gaps then count little.
-- Takes the known stats and returns the fields to store.
local function learn_gap(queue, ended_at, gaps, gaps_s, started, t)
  local gap = t - math.max(tonumber(ended_at or 0), started)
  gaps, gaps_s = tonumber(gaps or 0), tonumber(gaps_s or 0)
  local oldest = redis.call('ZRANGE', queue_key(queue, 'queued'), 0, 0, 'WITHSCORES')
  local keep = 1
  if oldest[2] and 2 * (t - oldest[2]) >= gap then
    gaps, gaps_s = gaps + 1, gaps_s + gap
    if gaps > MOST_GAPS or (gaps > 2 * FEW_GAPS and gaps_s > MOST_GAPS_S) then keep = 0.5 end
  elseif gaps > FEW_GAPS then
    keep = FEW_GAPS / gaps
  end
  local learned = {'ended_at', stamp(t), 'gaps', stamp(gaps * keep), 'gaps_s',
    stamp(gaps_s * keep)}
  if gaps >= FEW_GAPS then
    table.insert(learned, 'mean_gap_s')
    table.insert(learned, stamp(gaps_s / gaps))
  end
  return learned
end

-- Count the end of a job; if it ran, update the mean run time and gap.
local function count_end(queue, state, code, items, started, t)
  local stats = queue_key(queue, 'stats')
  redis.call('HINCRBY', stats, 'finished:' .. state, 1)
  if state == 'failed' then redis.call('HINCRBY', stats, 'failed:' .. code, 1) end
  if not started or state == 'canceled' then return end
  local r = redis.call('HMGET', stats, 'ended_at', 'gaps', 'gaps_s', 'mean_run_s', 'mean_item_s')
  local learned = learn_gap(queue, r[1], r[2], r[3], started, t)
  if state == 'succeeded' then
    table.insert(learned, 'mean_run_s')
    table.insert(learned, moved(r[4], t - started, 0.05))
    if items then
      table.insert(learned, 'mean_item_s')
      table.insert(learned, moved(r[5], (t - started) / items, 0.2))
    end
  end
  redis.call('HSET', stats, unpack(learned))
end

-- Count the end of one bulk message; `completed` of its `items` have results. Do not recreate a
-- batch whose record has expired.
local function note_message_end(batch, state, items, completed, is_again, retention_s)
  if redis.call('EXISTS', batch) == 0 then return end
  if is_again then
    redis.call('HINCRBY', batch, 'again', -1)
  else
    redis.call('HINCRBY', batch, state, 1)
    redis.call('HINCRBY', batch, 'items_completed', completed)
    redis.call('HINCRBY', batch, 'items_failed', items - completed)
  end
  local r = redis.call('HMGET', batch, 'messages', 'again', 'succeeded', 'failed', 'canceled',
    'expired')
  local under_way = tonumber(r[1] or 0) + tonumber(r[2] or 0)
  for i = 3, 6 do under_way = under_way - tonumber(r[i] or 0) end
  if under_way <= 0 then redis.call('EXPIRE', batch, retention_s) end
end

-- The only way into a terminal state: record it, leave the queue, count, start the retention.
-- `completed` items of a bulk job have results; nil means none.
local function finish(queue, attempt, state, field, payload, code, retention_s, completed)
  local t = now()
  local outcome = field ~= '' and {field, payload} or {}
  redis.call('HSET', job, 'state', state, 'finished_at', stamp(t), unpack(outcome))
  local idempotency, batch, items, owner, webhook, held, is_again, alone, sent_at, failure,
    started, keep_s = unpack(redis.call('HMGET', job, 'idempotency', 'batch', 'items', 'owner',
    'webhook', 'held', 'again', 'alone', 'sent_at', 'failure', 'started_at', 'keep_s'))
  local kept_s = tonumber(keep_s or retention_s)
  if redis.call('ZREM', queue_key(queue, 'running'), id) == 1 then
    redis.call('ZREM', leases, id)
  else
    redis.call('ZREM', queue_key(queue, 'queued'), id)
    started = nil -- it belongs to an earlier attempt
  end
  if alone or sent_at or held then redis.call('HDEL', job, 'alone', 'sent_at', 'held') end
  if failure and state == 'succeeded' then -- left by a sweep that abandoned a live attempt
    redis.call('HDEL', job, 'failure')
  end
  count_end(queue, state, code, items, started, t)
  event(state, attempt, code)
  redis.call('EXPIRE', job, kept_s)
  redis.call('EXPIRE', job .. ':events', kept_s)
  if owner then
    uncount_waiting(queue, owner)
    if held then tidy(queue, owner) end
  end
  if webhook then hook(webhook, state, attempt, code, retention_s) end
  -- The idempotency key expires with the job; a batch expires after the last of its jobs.
  if idempotency then redis.call('EXPIRE', idempotency, kept_s) end
  if batch then
    note_message_end(batch, state, items, completed or 0, is_again, retention_s)
  else
    note_end(owner or '', t, tonumber(retention_s), kept_s)
  end
end

-- Expire a job that was not started before its deadline; return whether it was expired.
-- An attempt that did not count (such as one without a model host) does not count as a start.
local function expire(state, attempt, uncounted, queue, expires_at, retention_s)
  if state ~= 'queued' or not expires_at then return false end
  if attempt > tonumber(uncounted or 0) then return false end
  if now() < tonumber(expires_at) then return false end
  finish(queue, attempt, 'expired', '', '', 'expired', retention_s)
  return true
end
