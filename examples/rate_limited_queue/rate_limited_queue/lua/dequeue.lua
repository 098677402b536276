-- ARGV: most jobs, lease (ms), hold (ms): for how long a queue that has an interval releases
--       nothing more, unless the delivery has begun (begin.lua) before
-- Answers {now, next release or '', {queue id, job id, payload, remaining, waiting, token}...}.
local most, lease_end = tonumber(ARGV[1]), now + tonumber(ARGV[2]) * 1000
local hold = tonumber(ARGV[3]) * 1000
local ready, released, bytes = base .. 'r', 0, 0
local answer = {text(now), ''}
local token = text(now)
repeat
  local due = redis.call('ZRANGEBYSCORE', ready, '-inf', text(now), 'LIMIT', 0, most - released)
  for _, id in ipairs(due) do
    if bytes > 16777216 then released = most break end
    local queue, state_key = base .. 'q:' .. id, base .. 's:' .. id
    local popped = redis.call('ZPOPMIN', queue)
    local job = popped[1]
    if job then
      local place, remaining = record(id, job)
      local payload = redis.call('HGET', base .. 'p:' .. id, job) or '{}'
      local interval = tonumber(redis.call('HGET', state_key, 'i'))
      local waiting = redis.call('ZCARD', queue)
      note(id, job, place, remaining, token)
      redis.call('ZADD', base .. 'a', text(lease_end), lease(id, job, token))
      redis.call('HSET', state_key, 'l', token)
      local at = now + interval * 1000
      if interval == 0 then
        -- A place of its own in the line, behind all that were due before: fair within a batch.
        at = now - most + released
      elseif hold > 0 then
        at = math.max(at, now + hold)
        redis.call('HSET', state_key, 'h', text(now + hold), 't', token)
      end
      if waiting == 0 then
        redis.call('ZREM', ready, id)
      else
        redis.call('ZADD', ready, text(at), id)
      end
      redis.call('HINCRBY', base .. 'n', 'w', -1)
      count('d', id)
      released = released + 1
      bytes = bytes + #payload
      answer[#answer + 1] = {id, job, payload, remaining, waiting, token}
    else
      redis.call('ZREM', ready, id)
    end
  end
until #due == 0 or released >= most
local first = redis.call('ZRANGE', ready, 0, 0, 'WITHSCORES')
if first[2] then answer[2] = text(tonumber(first[2])) end
return answer
