package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"testing"
	"testing/iotest"
)

func TestReaderReadsWhatWasAppended(t *testing.T) {
	var all []byte
	frames := []Frame{}
	for kind := Stdin; kind <= lastKind; kind++ {
		for _, n := range []int{0, 1, MaxPayload} {
			payload := bytes.Repeat([]byte{byte(kind)}, n)
			frames = append(frames, Frame{kind, payload})
			all = Append(all, kind, payload)
		}
	}
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(all), "in halves": iotest.HalfReader(bytes.NewReader(all)), "with the end": iotest.DataErrReader(bytes.NewReader(all)),
	} {
		t.Run(name, func(t *testing.T) {
			reader := NewReader(r)
			for i, want := range frames {
				if got, err := reader.Read(); err != nil || got.Kind != want.Kind || !bytes.Equal(got.Payload, want.Payload) {
					t.Fatalf("frame %d: kind %d, %d bytes, %v", i, got.Kind, len(got.Payload), err)
				}
			}
			if f, err := reader.Read(); err != io.EOF {
				t.Errorf("after the last: %+v, %v", f, err)
			}
		})
	}
}

func TestReaderTellsTruncations(t *testing.T) {
	whole := Append(Append(nil, Stdin, []byte("abc")), StdinEnd, nil)
	for n := range len(whole) + 1 {
		reader := NewReader(iotest.OneByteReader(bytes.NewReader(whole[:n])))
		var err error
		frames := 0
		for err == nil {
			if _, err = reader.Read(); err == nil {
				frames++
			}
		}
		first := HeaderSize + 3
		want := io.ErrUnexpectedEOF
		if n == 0 || n == first || n == len(whole) {
			want = io.EOF
		}
		if err != want || frames != map[bool]int{false: 0, true: 1}[n >= first]+map[bool]int{false: 0, true: 1}[n == len(whole)] {
			t.Errorf("%d bytes: %d frames, %v", n, frames, err)
		}
	}
	boom := errors.New("boom")
	if _, err := NewReader(io.MultiReader(bytes.NewReader(whole[:6]), iotest.ErrReader(boom))).Read(); !errors.Is(err, boom) {
		t.Errorf("an error within a frame: %v", err)
	}
}

func TestReaderBounds(t *testing.T) {
	for _, tc := range []struct {
		header [HeaderSize]byte
		ok     bool
	}{
		{[HeaderSize]byte{0, 0, 0, 0, 0}, false},
		{[HeaderSize]byte{byte(Stdin), 0, 0, 0, 0}, true},
		{[HeaderSize]byte{byte(lastKind), 0, 0, 0, 0}, true},
		{[HeaderSize]byte{byte(lastKind) + 1, 0, 0, 0, 0}, false},
		{[HeaderSize]byte{255, 0, 0, 0, 0}, false},
		{[HeaderSize]byte{byte(Stdin), 0, 1, 0, 0}, true},
		{[HeaderSize]byte{byte(Stdin), 0, 1, 0, 1}, false},
		{[HeaderSize]byte{byte(Stdin), 255, 255, 255, 255}, false},
	} {
		data := append(tc.header[:], make([]byte, MaxPayload)...)
		if _, err := NewReader(bytes.NewReader(data)).Read(); (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrFrame) {
			t.Errorf("header %v: %v", tc.header, err)
		}
	}
	long := bytes.NewReader(append([]byte{byte(Stdin), 255, 255, 255, 255}, make([]byte, 1000)...))
	if _, err := NewReader(long).Read(); err == nil || long.Len() != 1000 {
		t.Errorf("%d bytes are left of a frame that is too long", long.Len())
	}
}

func TestAcknowledgements(t *testing.T) {
	for _, offset := range []uint64{0, 1, Window, math.MaxUint64} {
		f, err := NewReader(bytes.NewReader(AppendAck(nil, AckStdout, offset))).Read()
		got, err2 := f.Ack()
		if err := errors.Join(err, err2); err != nil || got != offset || f.Kind != AckStdout {
			t.Errorf("%d became %d, kind %d, %v", offset, got, f.Kind, err)
		}
	}
	for _, n := range []int{0, 7, 9} {
		if _, err := (Frame{AckStdout, make([]byte, n)}).Ack(); !errors.Is(err, ErrFrame) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestSizes(t *testing.T) {
	f, err := NewReader(bytes.NewReader(AppendResize(nil, TTY{Rows: 24, Cols: 65535}))).Read()
	got, err2 := f.Size()
	if err := errors.Join(err, err2); err != nil || got != (TTY{Rows: 24, Cols: 65535}) || f.Kind != Resize {
		t.Errorf("%+v, kind %d, %v", got, f.Kind, err)
	}
	for _, n := range []int{0, 3, 5} {
		if _, err := (Frame{Resize, make([]byte, n)}).Size(); !errors.Is(err, ErrFrame) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// FuzzReader reads frames out of anything: what it returns is within bounds, and is what was there.
func FuzzReader(f *testing.F) {
	for _, seed := range [][]byte{
		nil, {0}, {1, 0, 0, 0}, {1, 0, 0, 0, 0}, {1, 0, 0, 0, 1}, {1, 0, 1, 0, 1}, {1, 255, 255, 255, 255}, {255, 0, 0, 0, 0},
		Append(nil, Stdout, []byte("out")), AppendAck(Append(nil, Stdin, nil), AckStdin, 1), Append(nil, Exited, fmt.Appendf(nil, "%s", `{"code": 1}`)),
		Append(Append(nil, Stdin, make([]byte, MaxPayload)), Done, nil),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		reader := NewReader(bytes.NewReader(data))
		var again []byte
		for {
			frame, err := reader.Read()
			if err != nil {
				complete := len(again) == len(data)
				if !errors.Is(err, ErrFrame) && err != io.ErrUnexpectedEOF && err != io.EOF || (err == io.EOF) != complete {
					t.Errorf("%d of %d bytes, then %v", len(again), len(data), err)
				}
				break
			}
			if len(frame.Payload) > MaxPayload || frame.Kind < Stdin || frame.Kind > lastKind {
				t.Fatalf("kind %d, %d bytes", frame.Kind, len(frame.Payload))
			}
			if _, err := frame.Ack(); (err == nil) != (len(frame.Payload) == 8) {
				t.Errorf("acknowledgement of %d bytes: %v", len(frame.Payload), err)
			}
			again = Append(again, frame.Kind, frame.Payload)
		}
		if !bytes.HasPrefix(data, again) {
			t.Error("the frames are not what was there")
		}
	})
}
