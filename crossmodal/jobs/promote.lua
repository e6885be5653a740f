-- Forget of an owner's messages in a queue those that are not there any more, and send what they
-- kept waiting. For what `start` was never told: a message or a record that somebody deleted.
-- reads and writes: all that owners have in the queue, and the jobs in that
-- KEYS[1]: the owners with a backlog. ARGV 2 the queue, 3 how many messages of one owner may wait
-- returns how many messages were sent
local queue, window = ARGV[2], tonumber(ARGV[3])
for _, owner in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local sent = queue_key(queue, 'sent:' .. owner)
  for _, waiting in ipairs(redis.call('SMEMBERS', sent)) do
    if redis.call('HGET', prefix .. ':job:' .. waiting, 'state') ~= 'queued' then
      redis.call('SREM', sent, waiting)
    end
  end
end
local count = 0
while count < 1000 and promote(queue, window) do count = count + 1 end
return count
