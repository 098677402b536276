-- ARGV: queue id, job id, token, lease (ms), rank and name of the run
-- Lets the work of a delivery begin, with a lease, or not. Answers
--   run    it begins now: what waited for a worker must not come in a burst, so the interval
--          counts from here
--   wait   the limit does not let it begin yet, which back.lua makes up for
--   other  another delivery has the job, or another run of this one, or the job waits
--   gone   there is no such job: it has ended, or was deleted
local id, job = ARGV[1], ARGV[2]
local place, remaining, token, rank, run = record(id, job)
if not place then return 'gone' end
if token == '' or token ~= ARGV[3] then return 'other' end
if run == ARGV[6] then return 'run' end -- it asks again, since the answer was lost
if rank ~= '' and tonumber(ARGV[5]) < tonumber(rank) then return 'other' end
if not start(id, token) then return 'wait' end
redis.call('ZADD', base .. 'a', text(now + tonumber(ARGV[4]) * 1000), lease(id, job, token))
note(id, job, place, remaining, token, text(tonumber(ARGV[5]) + 1), ARGV[6])
return 'run'
