package wire

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
)

// The stream of every test: byte i is a function of i alone that no shift equals.
func stream(offset uint64, n int) []byte {
	data := make([]byte, n)
	for i := range data {
		at := (offset + uint64(i)) * 0x9e3779b97f4a7c15
		data[i] = byte(at >> 56)
	}
	return data
}

// TestBufferIsAWindowOfItsStream does what a model of two numbers says, in random order: what is kept is what was written and is not acknowledged.
func TestBufferIsAWindowOfItsStream(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 0))
		b := NewBuffer(0)
		var acked, end uint64
		size := func() int { return int(random.Uint64N(1 << random.Uint64N(19))) }
		for range 400 {
			switch random.IntN(5) {
			case 0, 1:
				n := size()
				fits := end-acked+uint64(n) <= Window
				if b.Fits(n) != fits {
					t.Fatalf("seed %d: %d bytes fit: %v", seed, n, !fits)
				}
				if !fits {
					n = int(Window - (end - acked))
				}
				if written, err := b.Write(stream(end, n)); written != n || err != nil {
					t.Fatalf("seed %d: %d of %d written, %v", seed, written, n, err)
				}
				end += uint64(n)
			case 2:
				offset := acked + random.Uint64N(end-acked+1)
				if random.IntN(4) == 0 {
					offset = random.Uint64N(end + 1) // again what was said before
				}
				if err := b.Ack(offset); err != nil {
					t.Fatalf("seed %d: acknowledge %d of %d to %d: %v", seed, offset, acked, end, err)
				}
				acked = max(acked, offset)
			case 3:
				if err := b.Ack(end + 1 + random.Uint64N(1<<40)); !errors.Is(err, ErrOffset) {
					t.Fatalf("seed %d: acknowledge beyond the end: %v", seed, err)
				}
			case 4:
				checkRead(t, b, random, acked, end)
			}
		}
	}
}

// checkRead reads from anywhere.
func checkRead(t *testing.T, b *Buffer, random *rand.Rand, acked, end uint64) {
	t.Helper()
	part := make([]byte, 1+random.IntN(Window))
	for _, offset := range []uint64{end + 1, math.MaxUint64} {
		if _, err := b.ReadAt(part, offset, nil); !errors.Is(err, ErrOffset) {
			t.Fatalf("read at %d of %d: %v", offset, end, err)
		}
	}
	if acked > 0 {
		if _, err := b.ReadAt(part, random.Uint64N(acked), nil); !errors.Is(err, ErrOffset) {
			t.Fatalf("read of what was acknowledged: %v", err)
		}
	}
	if acked == end {
		return // it would wait
	}
	for offset := acked + random.Uint64N(end-acked); offset < end; {
		n, err := b.ReadAt(part, offset, nil)
		if n == 0 || err != nil || !bytes.Equal(part[:n], stream(offset, n)) {
			t.Fatalf("read at %d of %d to %d: %d bytes, %v", offset, acked, end, n, err)
		}
		offset += uint64(n)
	}
}

// A reader that begins again at random, and acknowledges late, gets the stream of a writer that never stops.
func TestBufferReplaysToAReaderThatBeginsAgain(t *testing.T) {
	const total = 20 * Window
	for seed := range uint64(5) {
		random := rand.New(rand.NewPCG(seed, 1))
		b := NewBuffer(0)
		var writing sync.WaitGroup
		writing.Go(func() {
			for offset := uint64(0); offset < total; offset += 1 << 15 {
				b.Write(stream(offset, 1<<15))
			}
			b.End()
		})
		part := make([]byte, 1+random.IntN(1<<16))
		var acked, offset uint64
		for {
			n, err := b.ReadAt(part, offset, nil)
			if err == io.EOF {
				break
			}
			if err != nil || !bytes.Equal(part[:n], stream(offset, n)) {
				t.Fatalf("seed %d: at %d: %d bytes, %v", seed, offset, n, err)
			}
			offset += uint64(n)
			if random.IntN(3) == 0 || offset-acked == Window {
				acked += random.Uint64N(offset - acked + 1)
				b.Ack(acked)
			}
			if random.IntN(10) == 0 {
				offset = acked
			}
		}
		writing.Wait()
		if offset != total {
			t.Errorf("seed %d: the end is at %d", seed, offset)
		}
	}
}

func TestBufferBlocksItsWriterAtTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBuffer(0)
		written := make(chan int, 1)
		go func() {
			n, _ := b.Write(stream(0, Window+10))
			written <- n
		}()
		synctest.Wait()
		if len(written) != 0 || b.Fits(1) || !b.Fits(0) {
			t.Fatal("more than the window was written")
		}
		for acked := uint64(1); acked < 10; acked++ {
			b.Ack(acked)
			synctest.Wait()
			if len(written) != 0 {
				t.Fatalf("all was written after %d bytes were acknowledged", acked)
			}
		}
		b.Ack(10)
		if n := <-written; n != Window+10 {
			t.Errorf("%d bytes were written", n)
		}
		go func() {
			_, err := b.Write([]byte("a"))
			if errors.Is(err, io.ErrClosedPipe) {
				written <- -1
			}
		}()
		synctest.Wait()
		if b.Closed() || len(written) != 0 {
			t.Fatal("it does not wait")
		}
		b.Close()
		if <-written != -1 || !b.Closed() {
			t.Error("the writer of a closed buffer waits")
		}
	})
}

func TestBufferBlocksItsReaderAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBuffer(0)
		type read struct {
			n   int
			err error
		}
		got := make(chan read, 1)
		stopped := false
		begin := func(offset uint64, stop func() bool) {
			go func() {
				n, err := b.ReadAt(make([]byte, 10), offset, stop)
				got <- read{n, err}
			}()
			synctest.Wait()
		}
		begin(0, nil)
		if len(got) != 0 {
			t.Fatal("it does not wait for the first byte")
		}
		b.Write([]byte("abc"))
		if r := <-got; r != (read{3, nil}) {
			t.Errorf("read %+v", r)
		}
		begin(3, func() bool { return stopped })
		b.Wake()
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("it ends though nothing says so")
		}
		stopped = true
		b.Wake()
		if r := <-got; r != (read{0, io.ErrClosedPipe}) {
			t.Errorf("stopped: %+v", r)
		}
		begin(3, nil)
		b.End()
		if r := <-got; r != (read{0, io.EOF}) {
			t.Errorf("at the end: %+v", r)
		}
		begin(0, nil)
		if r := <-got; r != (read{3, nil}) {
			t.Errorf("again after the end: %+v", r)
		}
	})
}
