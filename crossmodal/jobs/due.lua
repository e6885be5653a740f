-- Send messages for deliveries that are due: to be tried again, or whose message nobody took.
-- While many messages wait, none is sent: those may be of the same deliveries.
-- reads and writes: the pending deliveries, their counts, the queue of webhooks
-- KEYS[1]: the pending deliveries
-- returns how many messages were sent
local messages = messages_key('webhooks')
local room = MOST_HOOKS - redis.call('LLEN', messages)
if room <= 0 then return 0 end
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', stamp(now()), 'LIMIT', 0, room)
for _, delivery in ipairs(found) do
  if redis.call('EXISTS', prefix .. ':delivery:' .. delivery) == 1 then
    redis.call('ZADD', KEYS[1], stamp(now() + HOOK_GRACE_S), delivery)
    redis.call('LPUSH', messages, hook_message(delivery))
  else
    count_lost(redis.call('ZREM', KEYS[1], delivery))
  end
end
return #found
