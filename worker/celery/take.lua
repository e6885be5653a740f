-- Note a message that BRPOP gave, take more where there is room, and forget acknowledged ones.
--
-- What is taken is noted as kombu does, so that any worker's sweep can give it out again. It is
-- noted before it leaves its list: when Redis has no memory for that, nothing has happened.
--
-- KEYS: kombu's hash and sorted set of messages in hand; then the lists of each lane: of the
--       first priority those of each of the lane's queues, then those of the next priority.
-- ARGV: what the new delivery tags begin with, the number of priorities,
--       the queue and the text of the given message (or nothing and nothing), the number of lanes,
--       of each lane its room, its number of queues, and these as JSON strings,
--       and the delivery tags of acknowledged messages.
-- Returns what was taken, by turns the number of its queue among all, from 0, and its text.
-- Its delivery tags end with 1, 2, …; that of the given message with 0.

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

-- Up to `wanted` more of a list's messages, those that come next; they lie at its right end.
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
    -- Each queue gives its share; in the second round what is left of the room goes in order.
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
