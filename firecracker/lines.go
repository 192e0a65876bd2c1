//go:build linux

package firecracker

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"

	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// lines are the connections with guests that this process has. The zero value has none.
//
// A snapshot ends them in the guest, and the VMM keeps its end of them open without a word: who waits for what the guest says would wait for ever. So whoever takes one counts it in the run's record, and
// each process follows the records of the machines that it has connections with.
type lines struct {
	mu       sync.Mutex
	of       map[string]*line // by the machine's uid
	follower *state.Follower  // nil before the first
}

// line is all connections with one machine.
type line struct {
	uid   string
	users int // connections, and attempts
	conns map[*conn]moment
	last  moment // that is known
}

// moment tells when a connection was made: in which run, and after how many snapshots of it.
type moment struct {
	run    vmm.Identity
	resets int
}

func momentOf(run *state.Run) moment {
	if run == nil || run.Process == nil {
		return moment{}
	}
	return moment{*run.Process, run.Resets}
}

// before says whether a snapshot lies between. Of another run it is none: that one's connections ended with its VMM.
func (m moment) before(other moment) bool { return m.run == other.run && m.resets < other.resets }

// useLine begins an attempt to connect with a machine, and says when that is. From now on no snapshot goes unseen.
func (d *driver) useLine(uid string) (*line, moment) {
	line, err := d.lines.use(uid, d.followRuns)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.warn("a snapshot that another process takes may leave connections open that are none any more", err, "uid", uid)
	}
	run, err := d.state.ReadRun(uid)
	d.warn("connections may outlive a snapshot", err, "uid", uid)
	return line, momentOf(run)
}

// followRuns makes what tells whose run's record is replaced, and has what it tells heard until the driver's end.
func (d *driver) followRuns() (*state.Follower, error) {
	follower, err := d.state.Follow()
	if err != nil {
		return nil, err
	}
	context.AfterFunc(d.life, func() { follower.Close() })
	d.calls.Go(func() {
		for {
			uids, err := follower.Next()
			if err != nil {
				d.warn("connections may outlive snapshots", err)
				return
			}
			for _, uid := range uids {
				run, err := d.state.ReadRun(uid)
				d.warn("connections may outlive a snapshot", err, "uid", uid)
				d.lines.cut(uid, momentOf(run))
			}
		}
	})
	return follower, nil
}

// use begins an attempt. It ends by add or leave, also after an error: that the machine can't be followed.
func (l *lines) use(uid string, follow func() (*state.Follower, error)) (_ *line, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[string]*line{}
	}
	if l.of[uid] == nil {
		l.of[uid] = &line{uid: uid, conns: map[*conn]moment{}}
	}
	l.of[uid].users++
	if l.follower == nil {
		if l.follower, err = follow(); err != nil {
			return l.of[uid], err
		}
	}
	return l.of[uid], l.follower.Add(uid) // also of one that is followed: its directory may be another since
}

// leave ends a use of a line.
func (l *lines) leave(line *line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if line.users--; line.users == 0 {
		l.drop(line)
	}
}

// drop follows a machine no more; l.mu is held.
func (l *lines) drop(line *line) {
	if l.of[line.uid] != line { // that was forgotten
		return
	}
	delete(l.of, line.uid)
	if l.follower != nil {
		l.follower.Remove(line.uid)
	}
}

// add makes a connection one of a line's, on which it was begun at a moment. One that a snapshot has ended meanwhile ends at once.
func (l *lines) add(line *line, begun moment, c *conn) net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.closed = sync.OnceFunc(func() {
		l.mu.Lock()
		delete(line.conns, c)
		l.mu.Unlock()
		l.leave(line)
	})
	if begun.before(line.last) {
		c.end()
	} else {
		line.conns[c] = begun
	}
	return c
}

// cut ends those of a machine's that are older than its last snapshot, as if its VMM had. Who has one reads its end.
func (l *lines) cut(uid string, last moment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.of[uid]
	if line == nil {
		return
	}
	if !last.before(line.last) {
		line.last = last
	}
	for c, begun := range line.conns {
		if begun.before(last) {
			c.end()
			delete(line.conns, c)
		}
	}
}

// forget is for a machine whose VMM has ended, and its connections with it.
func (l *lines) forget(uid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if line := l.of[uid]; line != nil {
		l.drop(line)
	}
}
