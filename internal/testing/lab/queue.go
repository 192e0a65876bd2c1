//go:build linux

package lab

import "sync"

// queue has the jobs that no lab has taken yet, by their numbers.
type queue struct {
	mu         sync.Mutex
	next, jobs int
}

func newQueue(jobs int) *queue { return &queue{jobs: jobs} }

// take takes the job that comes next: NoJob when none is left.
func (q *queue) take() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == q.jobs {
		return NoJob
	}
	q.next++
	return q.next - 1
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.next == q.jobs
}

// share is what one lab runs of the jobs, and those that come in its place.
type share struct {
	queue *queue
	job   int // Under way, or NoJob. It stays so when its lab is lost.
	ended int
}

// begin returns the job to run: the one that a lost lab has left, or else the next.
func (s *share) begin() int {
	if s.job == NoJob {
		s.job = s.queue.take()
	}
	return s.job
}

// end ends the job that is under way.
func (s *share) end() { s.job, s.ended = NoJob, s.ended+1 }

// done says whether nothing is left for this lab to run.
func (s *share) done() bool { return s.job == NoJob && s.queue.empty() }
