-- ARGV: queue id, job id, payload, interval (ms, '': as it is), requeue limit, lease (ms), rank
--       and name of the run
-- Lets work begin that no delivery is for, if the limit of its queue has room for it; else it waits
-- there like any other. Answers {run | queued | other | free, token}:
--   run    it begins now, with a lease of this token
--   queued it waits in the queue
--   other  the job waits already, or another run of it goes on
--   free   no interval was given, and the queue has none: there is no limit
local id, job, payload, interval = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local state_key, ends = base .. 's:' .. id, now + tonumber(ARGV[6]) * 1000
local token = text(now)
local place, remaining, owner, rank, run = record(id, job)
if place then
  if run == ARGV[8] then return {'run', owner} end -- it asks again, since the answer was lost
  if owner == '' or rank == '' or tonumber(ARGV[7]) < tonumber(rank) then return {'other', ''} end
  -- Its last run is over (a retry, a rejection, a replacement): this one takes its place.
  if not start(id, owner) then
    send_back(id, job, place, remaining, owner, payload)
    return {'queued', ''}
  end
  redis.call('ZREM', base .. 'a', lease(id, job, owner))
else
  local state = redis.call('HMGET', state_key, 'i', 'q')
  if interval == '' then interval = state[1] end
  if not interval then return {'free', ''} end
  place, remaining, owner = now, ARGV[5], ''
  if state[2] then place = math.max(place, tonumber(state[2]) + 1) end
  place = text(place)
  redis.call('HSET', state_key, 'i', interval, 'q', place)
  if state[1] then redis.call('PERSIST', state_key) end
  redis.call('HSET', base .. 'p:' .. id, job, payload)
  count('e', id)
  if redis.call('ZCARD', base .. 'q:' .. id) > 0 or not start(id, '') then
    put_back(id, job, place, remaining)
    if state[1] ~= interval then line_up_again(id) end
    return {'queued', ''}
  end
  count('d', id)
end
redis.call('ZADD', base .. 'a', text(ends), lease(id, job, token))
note(id, job, place, remaining, token, text(tonumber(ARGV[7]) + 1), ARGV[8])
return {'run', token}
