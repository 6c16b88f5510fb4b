package reportbridge

import (
	"bufio"
	"bytes"
	"io"
)

// lineReader splits a stream on LF only and holds at most one line of at most max bytes.
type lineReader struct {
	source *bufio.Reader
	max    int
	line   []byte
}

func newLineReader(source io.Reader, max int) *lineReader {
	return &lineReader{source: bufio.NewReaderSize(source, 64<<10), max: max}
}

// next returns the next line without its LF and its length. If the length is above max, the line is only
// the beginning. The slice is good until the next call. A last line without LF counts.
func (r *lineReader) next() (line []byte, length int64, err error) {
	r.line = r.line[:0]
	if cap(r.line) > 1<<20 {
		r.line = nil // one long answer must not hold its memory for ever
	}
	for {
		part, err := r.source.ReadSlice('\n')
		ended := err == nil
		part = bytes.TrimSuffix(part, []byte{'\n'})
		length += int64(len(part))
		if room := r.max - len(r.line); room > 0 {
			r.line = append(r.line, part[:min(room, len(part))]...)
		}
		if ended {
			return r.line, length, nil
		}
		if err != bufio.ErrBufferFull {
			if length > 0 {
				return r.line, length, nil
			}
			return nil, 0, err
		}
	}
}
