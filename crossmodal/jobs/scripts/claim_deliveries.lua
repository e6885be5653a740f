-- Claim due deliveries, so that no other sender tries them for a while.
-- reads and writes: the pending deliveries, the deliveries, their counts, each owner's set of
--   claimed ones, the time of a recent claim
-- KEYS[1]: the pending deliveries. ARGV 3 max deliveries, 4 seconds of the claim, 5 max claimed
--   deliveries per owner
-- returns {id, {field, value, ...}} for each
local NOTE_EVERY_S = 10 -- seconds between two writes of the time
local MAX_SEEN = 1000 -- due deliveries that one claim reads
local max, claim_s, max_of_owner = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local t = now()
local clock = prefix .. ':webhooks:clock'
local noted = tonumber(redis.call('GET', clock) or 0)
local put_back_s = noted - t
if put_back_s > 1 then -- Redis's clock: bring forward what is due by the clock before
  local later = redis.call('ZRANGEBYSCORE', KEYS[1], stamp(t), '+inf', 'WITHSCORES')
  for i = 1, #later, 2 do
    redis.call('ZADD', KEYS[1], stamp(math.max(t, tonumber(later[i + 1]) - put_back_s)), later[i])
  end
end
if put_back_s > 1 or put_back_s < -NOTE_EVERY_S then
  redis.call('SET', clock, stamp(t), 'EX', 86400)
end
local places = {} -- owner -> how many more of its deliveries may be claimed

local function tried_key(owner)
  return prefix .. ':webhooks:tried:' .. owner
end

local function has_place(owner)
  if owner == '' then return true end
  if not places[owner] then
    redis.call('ZREMRANGEBYSCORE', tried_key(owner), '-inf', stamp(t))
    -- Later claims predate a step back of Redis's clock.
    redis.call('ZREMRANGEBYSCORE', tried_key(owner), '(' .. stamp(t + claim_s), '+inf')
    places[owner] = max_of_owner - redis.call('ZCARD', tried_key(owner))
  end
  return places[owner] > 0
end

-- The delivery is not due again before its new score.
local function claim(delivery, owner)
  redis.call('ZADD', KEYS[1], stamp(t + claim_s), delivery)
  if owner == '' then return end
  places[owner] = places[owner] - 1
  redis.call('ZADD', tried_key(owner), stamp(t + claim_s), delivery)
  redis.call('EXPIRE', tried_key(owner), claim_s)
end

local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', stamp(t), 'LIMIT', 0, MAX_SEEN)
local claimed, waiting = {}, {}
for _, delivery in ipairs(due) do
  if #claimed == max then break end
  local key = prefix .. ':delivery:' .. delivery
  local owner = redis.call('HGET', key, 'owner')
  if not owner then
    count_lost(redis.call('ZREM', KEYS[1], delivery))
  elseif has_place(owner) then
    claim(delivery, owner)
    claimed[#claimed + 1] = {delivery, redis.call('HGETALL', key)}
  else
    waiting[#waiting + 1] = delivery
  end
end
-- Deliveries of owners at their limit filled the page and may hide others: postpone them by 1 s.
if #due == MAX_SEEN and #claimed < max then
  for _, delivery in ipairs(waiting) do redis.call('ZADD', KEYS[1], stamp(t + 1), delivery) end
end
return claimed
