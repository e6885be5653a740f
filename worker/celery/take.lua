-- Note a message that BRPOP returned, take more where there is room, remove acknowledged ones.
--
-- What is taken is noted as kombu does, so that any worker's sweep can redeliver it. It is noted
-- before it leaves its list: if Redis has no memory for that, nothing has happened.
--
-- KEYS: kombu's hash and sorted set of messages in hand; then the lists of each lane: for the
--       first priority one list of each of the lane's queues, then the same for the next priority.
-- ARGV: the prefix of the new delivery tags, the number of priorities,
--       queue and text of the message from BRPOP (or two empty strings), the number of lanes,
--       for each lane its room, its number of queues, and these as JSON strings,
--       then the delivery tags of acknowledged messages.
-- Returns for each message taken the number of its queue among all, from 0, and its text.
-- The delivery tags end with 1, 2, …; that of the message from BRPOP with 0.

local prefix, priorities = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local noted, scores, taken, from = {}, {}, {}, {}

local function note(number, raw, queue)
  local tag = prefix .. number
  noted[#noted + 1] = tag
  noted[#noted + 1] = '[' .. raw .. ',"",' .. queue .. ']'
  scores[#scores + 1] = now
  scores[#scores + 1] = tag
end

-- Take up to `wanted` of a list's next messages, which lie at its right end.
local function take(list, wanted, number, queue)
  local before = from[list] or 0
  local found = redis.call('LRANGE', KEYS[list], -(before + wanted), -(before + 1))
  for i = #found, 1, -1 do
    taken[#taken + 1] = number
    taken[#taken + 1] = found[i]
    note(#taken / 2, found[i], queue)
  end
  from[list] = before + #found
  return #found
end

if ARGV[3] ~= '' then
  note(0, ARGV[4], ARGV[3])
end

local arg, list, first = 6, 3, 0
for _ = 1, tonumber(ARGV[5]) do
  local room, queues = tonumber(ARGV[arg]), tonumber(ARGV[arg + 1])
  for _ = 1, priorities do
    -- Round 1: an equal share for each queue. Round 2: the rest of the room, in order.
    local share, is_empty = math.ceil(room / queues), {}
    for round = 1, 2 do
      for q = 0, queues - 1 do
        local wanted = math.min(room, round == 1 and share or room)
        if wanted > 0 and not is_empty[q] then
          local found = take(list + q, wanted, first + q, ARGV[arg + 2 + q])
          is_empty[q] = found < wanted
          room = room - found
        end
      end
    end
    list = list + queues
  end
  arg, first = arg + 2 + queues, first + queues
end

if #noted > 0 then
  redis.call('HSET', KEYS[1], unpack(noted))
  redis.call('ZADD', KEYS[2], unpack(scores))
  for number, count in pairs(from) do
    if count > 0 then
      redis.call('LTRIM', KEYS[number], 0, -(count + 1))
    end
  end
end
if arg <= #ARGV then
  redis.call('HDEL', KEYS[1], unpack(ARGV, arg))
  redis.call('ZREM', KEYS[2], unpack(ARGV, arg))
end
return taken
