package wire

// firstPart is the size of the first part that a stream is moved in: most streams are short, and a process has many.
const firstPart = 2 << 10

// NextPart returns a buffer for the next part of a stream: the last one, or a larger one when n bytes filled that, of at most so many. Begin with nil.
func NextPart(last []byte, n, most int) []byte {
	switch {
	case last == nil:
		return make([]byte, min(firstPart, most))
	case n < len(last) || len(last) >= most:
		return last
	}
	return make([]byte, min(4*len(last), most))
}
