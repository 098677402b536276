-- ARGV: queue id, job id, payload, interval (ms, '': as it is), requeue limit, most waiting jobs
-- (-1: any). Answers {queued | duplicate | full | unknown (no interval), waiting jobs before}.
local id, job, payload, interval = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local queue, state_key = base .. 'q:' .. id, base .. 's:' .. id
local waiting = redis.call('ZCARD', queue)
if redis.call('HEXISTS', base .. 'j:' .. id, job) == 1 then return {'duplicate', waiting} end
local most = tonumber(ARGV[6])
if most >= 0 and waiting >= most then return {'full', waiting} end

local state = redis.call('HMGET', state_key, 'i', 'q')
if interval == '' then interval = state[1] end
if not interval then return {'unknown', waiting} end
-- The clock alone could stand still or step back between two jobs.
local place = now
if state[2] then place = math.max(place, tonumber(state[2]) + 1) end
note(id, job, text(place), ARGV[5], '')
redis.call('HSET', base .. 'p:' .. id, job, payload)
redis.call('ZADD', queue, text(place), job)
redis.call('HSET', state_key, 'i', interval, 'q', text(place))
if state[1] then redis.call('PERSIST', state_key) end
if waiting == 0 then
  line_up(id, next_release(id))
elseif state[1] ~= interval then
  line_up_again(id)
end
redis.call('HINCRBY', base .. 'n', 'w', 1)
count('e', id)
return {'queued', waiting}
