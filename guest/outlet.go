package guest

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// outlet hands one direction to the caller's writer. What has come and is not yet written is bounded by the window that the agent keeps.
type outlet struct {
	buffer *wire.Buffer
	begin  uint64        // offset of the first byte
	got    uint64        // offset behind what has come
	passed atomic.Uint64 // offset behind what the caller's writer has
	ack    wire.Kind
	done   chan struct{} // all is written
}

func newOutlet(ack wire.Kind, begin uint64) *outlet {
	o := &outlet{buffer: wire.NewBuffer(begin), begin: begin, got: begin, ack: ack, done: make(chan struct{})}
	o.passed.Store(begin)
	return o
}

// take takes what came. An agent that sends more than the window is none.
func (o *outlet) take(data []byte) error {
	if !o.buffer.Fits(len(data)) {
		return errors.New("more than the window was sent")
	}
	n, err := o.buffer.Write(data)
	o.got += uint64(n)
	return err
}

// write hands the direction to the caller's writer, and tells the agent how far it has come. A writer that fails gets no more, and the process is not held up by it.
func (o *outlet) write(to io.Writer, tell func(frame []byte) error) {
	defer close(o.done)
	if pipe, ok := to.(outputPipe); ok {
		defer pipe.Close()
	}
	if to == nil {
		to = io.Discard
	}
	var part []byte
	n := 0
	for offset := o.begin; ; {
		part = wire.NextPart(part, n, 64<<10)
		var err error
		n, err = o.buffer.ReadAt(part, offset, nil)
		if err != nil {
			return
		}
		if _, err := to.Write(part[:n]); err != nil {
			to = io.Discard
		}
		offset += uint64(n)
		o.buffer.Ack(offset)
		o.passed.Store(offset)
		tell(wire.AppendAck(nil, o.ack, offset)) // what a broken connection loses is said again on the next
	}
}
