//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// observed is an observer whose system is the test's.
type observed struct {
	observer
	told   []wire.SystemEvent
	killed uint64
	disk   wire.Disk
	broken error
}

func newObserved() *observed {
	o := &observed{disk: wire.Disk{Path: "/", Size: 1000, Free: 500}}
	o.observer = observer{
		tell: func(e wire.SystemEvent) { o.told = append(o.told, e) }, level: wire.EventDiskOK,
		killed: func() (uint64, error) { return o.killed, o.broken }, space: func() (wire.Disk, error) { return o.disk, o.broken },
	}
	return o
}

const (
	victimLine = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/box,task_memcg=/box/a,task=b,task=tail,pid=321,uid=0"
	killLine   = "Memory cgroup out of memory: Killed process 321 (tail) total-vm:5000kB, anon-rss:100kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:12kB oom_score_adj:0"
)

func TestKillsAreHeard(t *testing.T) {
	for name, c := range map[string]struct {
		killed uint64
		lines  []string
		want   []wire.OOMKill
	}{
		"one in a cgroup":       {1, []string{victimLine, killLine}, []wire.OOMKill{{PID: 321, Name: "tail", Cgroup: "/box/a,task=b"}}},
		"one of all":            {1, []string{"Out of memory: Killed process 7 (a b) total-vm:1kB, anon-rss:1kB"}, []wire.OOMKill{{PID: 7, Name: "a b"}}},
		"another's cgroup":      {1, []string{victimLine, "Out of memory: Killed process 7 (x) total-vm:1kB"}, []wire.OOMKill{{PID: 7, Name: "x"}}},
		"a name as a line's":    {1, []string{"Out of memory: Killed process 7 (a) total-vm:1 (b) total-vm:1kB"}, []wire.OOMKill{{PID: 7, Name: "a) total-vm:1 (b"}}},
		"what was not counted":  {0, []string{victimLine, killLine}, nil},
		"one counted, two said": {1, []string{killLine, killLine}, []wire.OOMKill{{PID: 321, Name: "tail"}}},
		"something else":        {9, []string{"", "oom-kill:", "oom-kill:a,task_memcg=/b", "Out of memory", "Out of memory: Killed process x (a) total-vm:1kB", "Out of memory: Killed process 1 (a)", "tail: Killed process 1 (a) total-vm:1kB"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := newObserved()
			o.killed = c.killed
			for _, line := range c.lines {
				o.hear(line)
			}
			var got []wire.OOMKill
			for _, e := range o.told {
				got = append(got, *e.OOM)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestKillsAreCounted(t *testing.T) {
	o := newObserved()
	o.killed = 2
	o.count()
	if len(o.told) != 0 {
		t.Errorf("told before the log had its time: %+v", o.told)
	}
	o.hear(killLine)
	o.count()
	o.count()
	if len(o.told) != 2 || o.told[1].OOM.PID != 0 {
		t.Errorf("%+v", o.told)
	}
	o.killed = 1 << 40 // a guest's kernel that lies, or a wild one
	o.count()
	o.count()
	o.count()
	if len(o.told) != 2+maxGuess {
		t.Errorf("%d are told", len(o.told))
	}
	o.broken = errors.New("no /proc/vmstat")
	o.hear(killLine)
	o.count()
	if len(o.told) != 3+maxGuess {
		t.Errorf("without a counter: %d are told", len(o.told))
	}
}

func TestDiskLevels(t *testing.T) {
	o := newObserved()
	for i, c := range []struct {
		free, files int64
		want        string // what is told; empty for nothing
	}{
		{500, 50, ""}, {100, 50, ""}, {99, 50, wire.EventDiskLow}, {1, 50, ""}, {149, 50, ""}, {150, 50, wire.EventDiskOK}, {0, 50, wire.EventDiskFull}, {19, 50, ""}, {20, 50, wire.EventDiskLow},
		{900, 9, ""}, {900, 0, wire.EventDiskFull}, {900, 50, wire.EventDiskOK}, {0, 0, wire.EventDiskFull},
	} {
		o.told = nil
		o.disk.Free, o.disk.FilesFree, o.disk.Files = c.free, c.files, 100
		o.lookAtDisk()
		got := ""
		if len(o.told) > 0 {
			got = o.told[0].Kind
		}
		if got != c.want || len(o.told) > 1 {
			t.Errorf("%d: %+v is told as %q, want %q", i, o.disk, got, c.want)
		}
	}
	for _, unbounded := range []wire.Disk{{}, {Size: 100, Free: 50}} {
		if level := levelOf(unbounded, wire.EventDiskOK); level != wire.EventDiskOK {
			t.Errorf("%+v is %s", unbounded, level)
		}
	}
	if d, err := space("/"); err != nil || d.Size <= 0 || d.Free > d.Size {
		t.Errorf("%+v, %v", d, err)
	}
}

// records are what a log has, one a Read, as /dev/kmsg does.
type records []any

func (r *records) Read(p []byte) (int, error) {
	if len(*r) == 0 {
		return 0, io.EOF
	}
	next := (*r)[0]
	*r = (*r)[1:]
	if err, ok := next.(error); ok {
		return 0, err
	}
	return copy(p, next.(string)), nil
}

func TestTheKernelsLogAlone(t *testing.T) {
	lines := make(chan string, 10)
	readLog(t.Context(), &records{
		"3,1,2,-;" + killLine + "\n SUBSYSTEM=a\n", "11,2,3,-;" + killLine + "\n", syscall.EPIPE, "6,3,4,-;later\n", "no record", "", "x,1;y", "4,5", "-1,1,1,-;negative\n",
	}, lines)
	close(lines)
	got := []string{}
	for line := range lines {
		got = append(got, line)
	}
	if !slices.Equal(got, []string{killLine, "later"}) {
		t.Errorf("%q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	readLog(ctx, &records{"3,1,2,-;a"}, make(chan string)) // nobody hears it, and it ends
}

func TestAnObserverRunsAndEnds(t *testing.T) {
	o := newObserved()
	told := make(chan wire.SystemEvent, 10)
	o.tell = func(e wire.SystemEvent) { told <- e }
	o.disk.Free = 0
	ctx, cancel := context.WithCancel(t.Context())
	lines, done := make(chan string), make(chan struct{})
	var counted uint64
	o.observer.killed = func() (uint64, error) { counted++; return counted, nil }
	go func() {
		defer close(done)
		o.run(ctx, lines, time.Hour)
	}()
	lines <- killLine
	for _, want := range []string{wire.EventDiskFull, wire.EventOOMKill} {
		select {
		case e := <-told:
			if e.Kind != want {
				t.Errorf("%+v, want %s", e, want)
			}
		case <-time.After(patience):
			t.Fatal("nothing is told")
		}
	}
	cancel()
	<-done
}

func TestHistoryIsBounded(t *testing.T) {
	h := newHistory()
	_, changed := h.behind(0)
	for range 3 * wire.MaxKept {
		h.add(wire.SystemEvent{Kind: "a"})
	}
	<-changed
	events, _ := h.behind(0)
	if len(events) != wire.MaxKept || events[0].Seq != 2*wire.MaxKept+1 {
		t.Errorf("%d are kept, from %d on", len(events), events[0].Seq)
	}
	if events, _ := h.behind(3 * wire.MaxKept); len(events) != 0 {
		t.Errorf("behind the last: %+v", events)
	}
	if events, _ := h.behind(3*wire.MaxKept - 1); len(events) != 1 {
		t.Errorf("behind the last but one: %+v", events)
	}
	if events, _ := h.behind(1 << 63); len(events) != 0 {
		t.Errorf("behind what never was: %+v", events)
	}
}

func FuzzKernelLog(f *testing.F) {
	for _, seed := range []string{"", victimLine, killLine, "oom-kill:,task_memcg=,pid=1,task=", "Out of memory: Killed process  () total-vm:", fmt.Sprintf("3,1,2,-;%s\n", killLine)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		o := newObserved()
		o.killed = 1
		if text, ok := kernelText([]byte(line)); ok && len(text) > len(line) {
			t.Errorf("%q became %q", line, text)
		}
		o.hear(line)
		for _, e := range o.told {
			if len(e.OOM.Name) > len(line) {
				t.Errorf("%+v of %q", e, line)
			}
		}
	})
}

func FuzzInotify(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00name\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x01\x00\x00\x00\x40\x00\x00\x00\x01\x00\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		w := &fileWatch{}
		for _, e := range w.events(changesOf(text), true) {
			if len(e.Name)+len(e.From) > 2*len(text) || w.moved != nil {
				t.Errorf("%+v", e)
			}
		}
	})
}
