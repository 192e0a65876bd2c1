//go:build linux

package agent

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// collector moves a pipe into a buffer. A descendant may hold the pipe open after the process's end; that is part of the stream.
type collector struct {
	pipe   *os.File
	buffer *wire.Buffer
	idle   atomic.Int64 // since when it waits for the pipe, in Unix nanoseconds; 0 while it waits for the host
}

func (c *collector) run() {
	defer c.buffer.End()
	defer c.pipe.Close()
	var part []byte
	for n := 0; ; {
		part = wire.NextPart(part, n, maxPart)
		c.idle.Store(time.Now().UnixNano())
		var err error
		n, err = c.pipe.Read(part)
		c.idle.Store(0)
		if _, dropped := c.buffer.Write(part[:n]); err != nil || dropped != nil {
			return
		}
	}
}

// linger is how long after the process's end a silent descendant may hold its output open.
const linger = 2 * time.Second

// finish waits for the rest of the output, but not for descendants that stay and say nothing.
func finish(collectors []*collector, reading *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { reading.Wait(); close(done) }()
	exited := time.Now()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-done:
			return
		case now := <-look.C:
			for _, c := range collectors {
				idle := c.idle.Load()
				if idle != 0 && now.Sub(exited) > linger && now.UnixNano()-idle > int64(linger) {
					c.pipe.Close()
				}
			}
		}
	}
}
