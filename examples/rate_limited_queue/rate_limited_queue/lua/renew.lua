-- ARGV: queue id, job id, token or '' for the current one, lease (ms), least rank of the next run
--       ('': as it is), 1 if its work, which has just begun, did so only now. Renews a lease; 0
--       where it is not the job's current one.
local id, job = ARGV[1], ARGV[2]
local place, remaining, token, rank = record(id, job)
if not place or token == '' or (ARGV[3] ~= '' and token ~= ARGV[3]) then return 0 end
redis.call('ZADD', base .. 'a', text(now + tonumber(ARGV[4]) * 1000), lease(id, job, token))
if ARGV[5] ~= '' then note(id, job, place, remaining, token, ARGV[5]) end
if ARGV[6] == '1' then
  local key = base .. 's:' .. id
  local state = redis.call('HMGET', key, 'l', 'b')
  if state[1] and state[1] == state[2] then -- nothing was released since
    redis.call('HSET', key, 'l', text(now), 'b', text(now))
    line_up_again(id)
  end
end
return 1
