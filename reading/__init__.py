"""What predict.py needs to read a picture, and the errors at the end of a run.

These modules import `training`. Nothing in `training` imports them. From the bottom up:

    images           turn a photograph into an MNIST digit
    cells            compute the gates of a trained network, row by row
    page             write the network as a page that reads what one draws
    errors           find the images that are named wrongly
    pictures         draw the digit that was found, the rows, the gates, the errors
"""
