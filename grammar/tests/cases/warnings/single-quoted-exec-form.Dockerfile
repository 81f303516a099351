FROM alpine
CMD ['node', 'app.js']
