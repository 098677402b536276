-- Removes the totals of a type that has no job and no dead job. Answers 1 if it had none.
if redis.call('EXISTS', base .. 'r', base .. 'a', base .. 'd') > 0 then return 0 end
redis.call('DEL', base .. 'n')
return 1
